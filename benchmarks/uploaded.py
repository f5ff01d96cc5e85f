"""Segments out of the uploaded bytes against nginx serving the same segments as files: bytes a second that one core gives."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.delivery import LRU, SERVER_CORE, compare, nginx, pin
from benchmarks.films import ffmpeg
from benchmarks.instant import film
from benchmarks.report import Figure
from tests.support.product import play, upload, wait_playable
from tests.support.server import Server

MINUTES = 60
MOST = 400
"""Segments that are asked for in turn, over and over: more than the cache may hold (`LRU`), so that of none that is asked for is
anything left and each is made anew."""

TARGETS = {"source": "≥ 0.7", "audio-1": "≥ 0.5"}


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Video and sound of an hour at a low rate, and of twenty minutes at a usual one; each request made anew from the index.

    A film that is given is not used: a minute of sound stays in the cache.
    """
    films = {" of 0.8 Mbit/s": film(folder, MINUTES), " of 5 Mbit/s": _usual(folder)}
    found: list[Figure] = []
    for number, (rate, path) in enumerate(films.items()):
        with _served(folder / f"uploaded-{number}", path) as (server, base):
            for rendition, target in TARGETS.items():
                names = _names(server, f"{base}{rendition}/")
                segments = [httpx.get(f"{server.url}{base}{rendition}/{name}").content for name in names]
                assert sum(map(len, segments)) > LRU, "the film is too short: all of it stays in the cache"
                paths = [f"{base}{rendition}/{name}" for name in names]
                with nginx(folder / f"nginx-{number}-{rendition}", segments) as port:
                    files = [f"/{n}.m4s" for n in range(len(segments))]
                    what = f"uploaded {'video' if rendition == 'source' else 'sound'}{rate}"
                    found += compare(what, server, paths, port, files, segments, target, by_requests=False)
    return found


def _usual(folder: Path) -> Path:
    """Twenty minutes in 720p of 5 Mbit/s with a key frame every four seconds, and AAC; its half minutes are alike."""
    part, path = folder / "usual-part.mp4", folder / "usual.mp4"
    source = (
        *("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=30:d=30,noise=alls=30:allf=t"),
        *("-f", "lavfi", "-i", "sine=f=330:b=4:d=30:r=48000", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "3"),
        *("-g", "120", "-b:v", "5M", "-maxrate", "5M", "-bufsize", "5M", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-b:a", "128k", "-ac", "2"),
    )
    subprocess.run([ffmpeg(), "-v", "error", "-y", *source, str(part)], check=True)
    loops = ("-stream_loop", "39", "-i", str(part), "-c", "copy")
    subprocess.run([ffmpeg(), "-v", "error", "-y", *loops, str(path)], check=True)
    return path


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
