"""How long after the last byte a film plays."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from benchmarks import films
from benchmarks.report import Figure
from tests.support.product import TUS, play
from tests.support.server import Server

RUNS = 5


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """From the answer to the last PATCH until the first segment of the lowest rung has been served."""
    minute, what = films.minute(folder, given)
    found = []
    for name, film in (("60 s", minute), ("10 min", films.ten_minutes(folder, minute))):
        times = tuple(_once(folder / f"first-{name.replace(' ', '-')}-{run}", film) for run in range(RUNS))
        found.append(
            Figure(f"first playable segment, {name} of 1080p", times, "s", "≤ 2 s", f"after the last byte; {what}")
        )
    return found


def _once(folder: Path, film: Path) -> float:
    server = Server(folder)
    server.start()
    try:
        with httpx.Client(timeout=600, headers={"authorization": f"Bearer {server.admin_key}"}) as http:
            headers = TUS | {"upload-length": str(film.stat().st_size)}
            made = http.post(f"{server.url}/api/v1/uploads", headers=headers)
            asset_id, url = made.headers["streamgate-asset"], made.headers["location"]
            headers = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
            with film.open("rb") as file:
                assert http.patch(url, headers=headers, content=file).status_code == 204
            began = time.monotonic()
            while not http.get(f"{server.url}/api/v1/assets/{asset_id}").json()["playable"]:
                time.sleep(0.02)
            base = play(server, asset_id, server.admin_key).json()["hls_url"].removesuffix("master.m3u8")
            playlist = http.get(f"{base}master.m3u8").text
            lowest = next(line for line in playlist.splitlines() if line and not line.startswith("#"))
            assert http.get(base + lowest.replace("playlist.m3u8", "0.m4s")).status_code == 200
            return time.monotonic() - began
    finally:
        server.stop()
