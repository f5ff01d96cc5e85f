"""Five thousand viewers of tiny segments for a minute: no error, and no memory that grows."""

from __future__ import annotations

import asyncio
import random
import resource
import threading
from pathlib import Path

from benchmarks.processes import proportional
from benchmarks.report import Figure
from benchmarks.visitors import Waits, visit
from tests.support.films import film
from tests.support.product import upload, wait_final
from tests.support.server import Server

VIEWERS = 5000
SECONDS = 60.0
EVERY_S = 4.0
"""Each viewer asks for a segment this often, as a player of four-second segments does."""


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Every viewer has a session and a connection of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    settings = {
        "transcoder.rungs": [120],
        "transcoder.preset": "ultrafast",
        "transcoder.audio_bitrate": 32_000,
        "api_gateway.anonymous_burst": 1_000_000,
        "log_level": "warning",
    }
    server = Server(folder / "viewers", settings)
    server.start()
    try:
        source = film(folder, seconds=32, width=320, height=180, audio="mono")
        asset_id = upload(server, source, title="Tiny", visibility="public")
        assert wait_final(server, asset_id)["state"] == "ready"
        paths = _sessions(server, asset_id)
        assert server.process is not None
        weights = [proportional(server.process.pid)]
        waits = _watch(server, paths, weights)
    finally:
        server.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    half = weights[1 : len(weights) // 2 + 1], weights[len(weights) // 2 + 1 :]
    growth = max(half[1]) - max(half[0])
    served = f"{len(waits.seconds)} segments in {SECONDS:.0f} s"
    paced = f"p50 {waits.percentile(0.5):.1f} ms, client on the same cores"
    over = "highest PSS over the highest of the first half"
    return [
        Figure("5,000 viewers, errors", (float(len(waits.errors)),), "", "0", served),
        Figure("5,000 viewers, p99", (waits.percentile(0.99),), "ms", "–", paced),
        Figure("5,000 viewers, memory before and while", (weights[0], max(weights)), "MiB", "flat", "PSS of the tree"),
        Figure("5,000 viewers, growth in the second half minute", (growth,), "MiB", "flat", over),
    ]


def _sessions(server: Server, asset_id: str) -> list[list[str]]:
    paths = []
    with server.client() as http:
        for _ in range(VIEWERS):
            started = http.post(f"/api/v1/assets/{asset_id}/playback", json={})
            assert started.status_code == 201, started.text
            base = started.json()["hls_url"].removeprefix(server.url).removesuffix("master.m3u8")
            paths.append([f"{base}audio-1/{number}.m4s" for number in range(7)])
    return paths


def _watch(server: Server, paths: list[list[str]], weights: list[float]) -> Waits:
    assert server.process is not None
    pid, stop = server.process.pid, threading.Event()

    def weigh() -> None:
        while not stop.wait(5):
            weights.append(proportional(pid))

    async def everybody() -> Waits:
        waits = Waits()
        loop = asyncio.get_running_loop()
        begin = loop.time() + 5
        until = begin + SECONDS
        await asyncio.gather(
            *(
                visit(server.port, mine, waits, every_s=EVERY_S, start=begin + random.random() * EVERY_S, until=until)
                for mine in paths
            )
        )
        return waits

    thread = threading.Thread(target=weigh, daemon=True)
    thread.start()
    try:
        return asyncio.run(everybody())
    finally:
        stop.set()
        thread.join()
