"""Upload and playback for an hour (``MINUTES=…``): memory, open files and tasks at the end as at the beginning."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import httpx

from benchmarks.processes import proportional
from benchmarks.report import Figure
from tests.support.films import film
from tests.support.product import play, upload, wait_final
from tests.support.server import Server

MINUTES = float(os.environ.get("MINUTES", "60"))
SAMPLE_S = 30.0
PAUSE_S = 4.0


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """A round: upload a film, watch every segment of it, delete it. Samples twice a minute, written to stderr as they come."""
    settings = {"transcoder.rungs": [120, 240], "transcoder.preset": "ultrafast", "log_level": "warning"}
    server = Server(folder / "soak", settings)
    server.start()
    samples: list[tuple[float, float, float]] = []
    rounds = 0
    try:
        source = film(folder, seconds=12, width=426, height=240)
        until, due = time.monotonic() + MINUTES * 60, 0.0
        while time.monotonic() < until:
            _round(server, source)
            rounds += 1
            time.sleep(PAUSE_S)
            if time.monotonic() >= due and rounds > 3:
                due = time.monotonic() + SAMPLE_S
                samples.append(_sample(server))
                print(f"{rounds} rounds: %.0f MiB, %.0f open files, %.0f tasks" % samples[-1], flush=True)
    finally:
        server.stop()
    quarter = max(1, len(samples) // 4)
    early, late = samples[:quarter], samples[-quarter:]
    how = f"{rounds} films uploaded, encoded, watched and deleted in {MINUTES:.0f} min; mean of the first and the last quarter"
    names = (("memory (PSS of the tree)", "MiB"), ("open files", ""), ("tasks of the event loop", ""))
    return [
        Figure(
            f"soak, {name}", (sum(s[n] for s in early) / quarter, sum(s[n] for s in late) / quarter), unit, "flat", how
        )
        for n, (name, unit) in enumerate(names)
    ]


def _round(server: Server, source: Path) -> None:
    asset_id = upload(server, source, title="Soak", visibility="public")
    assert wait_final(server, asset_id)["state"] == "ready"
    base = play(server, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
    with httpx.Client() as http:
        for rendition in re.findall(r"^([a-z0-9-]+)/playlist.m3u8$", http.get(f"{base}master.m3u8").text, re.MULTILINE):
            for name in re.findall(r"^\d+\.m4s$", http.get(f"{base}{rendition}/playlist.m3u8").text, re.MULTILINE):
                assert http.get(f"{base}{rendition}/{name}").status_code == 200
    with server.admin() as http:
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204


def _sample(server: Server) -> tuple[float, float, float]:
    assert server.process is not None
    with server.admin() as http:
        values = http.get("/health").json()["checks"]["process"]["values"]
    return proportional(server.process.pid), values["open_files"], values["tasks"]
