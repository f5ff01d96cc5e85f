"""What a 2 GiB upload adds to the server's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.processes import Peak, proportional
from benchmarks.report import Figure
from tests.support.product import TUS
from tests.support.server import Server

SIZE = 2 << 30
PIECE = bytes(1 << 20)


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Peak PSS during one PATCH of 2 GiB over the idle PSS before, and the bytes stored per second."""
    server = Server(folder / "upload", {"upload.reserve_bytes": 0})
    server.start()
    try:
        time.sleep(3)
        assert server.process is not None
        idle = proportional(server.process.pid)
        with httpx.Client(timeout=600, headers={"authorization": f"Bearer {server.admin_key}"}) as http:
            # One byte stays out, so that nothing but the upload is measured.
            headers = TUS | {"upload-length": str(SIZE + 1)}
            url = http.post(f"{server.url}/api/v1/uploads", headers=headers).headers["location"]
            headers = TUS | {
                "upload-offset": "0",
                "content-type": "application/offset+octet-stream",
                "content-length": str(SIZE),
            }
            began = time.monotonic()
            with Peak(server.process.pid) as peak:
                assert http.patch(url, headers=headers, content=_body()).status_code == 204
            seconds = time.monotonic() - began
            http.delete(url, headers=TUS)
    finally:
        server.stop()
    return [
        Figure(
            "memory that a 2 GiB upload adds",
            (peak.highest - idle,),
            "MiB",
            "≤ 64 MB",
            "peak PSS of the tree over idle",
        ),
        Figure("upload speed", (SIZE / (1 << 20) / seconds,), "MiB/s", "–", "loopback, one PATCH, synced to disk"),
    ]


def _body() -> Iterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE
