"""Segments out of the uploaded bytes against nginx serving the same segments as files: bytes a second that one core gives."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.delivery import LRU, SERVER_CORE, compare, nginx, pin
from benchmarks.instant import film
from benchmarks.report import Figure
from tests.support.product import play, upload, wait_playable
from tests.support.server import Server

MINUTES = 60
MOST = 400
"""Segments that are asked for in turn: many times what the cache holds."""


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Video and sound of an hour, each request made anew from the sample index."""
    found: list[Figure] = []
    with _served(folder / "uploaded", given or film(folder, MINUTES)) as (server, base):
        for rendition, target in (("source", "≥ 0.7"), ("audio-1", "≥ 0.5")):
            names = _names(server, f"{base}{rendition}/")
            segments = [httpx.get(f"{server.url}{base}{rendition}/{name}").content for name in names]
            paths = [f"{base}{rendition}/{name}" for name in names]
            with nginx(folder / f"nginx-{rendition}", segments) as port:
                files = [f"/{number}.m4s" for number in range(len(segments))]
                what = f"segments of uploaded {'video' if rendition == 'source' else 'sound'}"
                found += compare(what, server, paths, port, files, segments, target, by_requests=False)
    return found


def _names(server: Server, base: str) -> list[str]:
    playlist = httpx.get(f"{server.url}{base}playlist.m3u8").raise_for_status().text
    return re.findall(r"^\d+\.m4s$", playlist, re.MULTILINE)[:MOST]


@contextmanager
def _served(folder: Path, path: Path) -> Iterator[tuple[Server, str]]:
    """A server pinned to its core, and the path of a public film of whose ladder nothing is made."""
    server = Server(folder, {"cache.memory_bytes": LRU, "log_level": "warning"})
    server.start()
    try:
        asset_id = upload(server, path, title="Uploaded", visibility="public")
        wait_playable(server, asset_id)
        with server.admin() as http:
            http.post(f"/api/v1/assets/{asset_id}/cancel").raise_for_status()
        base = str(play(server, asset_id, None).json()["hls_url"]).removesuffix("master.m3u8")
        assert server.process is not None
        pin(server.process.pid, SERVER_CORE)
        time.sleep(1)
        yield server, base.removeprefix(server.url)
    finally:
        server.stop()
