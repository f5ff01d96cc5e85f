"""Uploading by tus, against the reference server of the protocol's makers (npm @tus/server with its file store)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.report import Figure
from tests.support.product import TUS
from tests.support.server import Server, free_port

SIZE = 512 << 20
PAIRS = 5
NODE = Path(__file__).resolve().parent / "node"


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Bytes a second of one PATCH of 512 MiB from curl, alternating; ours is on disk when it answers."""
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NODE, check=True)
    file = folder / "tus.bin"
    file.write_bytes(bytes(SIZE))
    ours, theirs = [], []
    server = Server(folder / "tus", {"upload.reserve_bytes": 0, "log_level": "warning"})
    server.start()
    try:
        with _reference(folder / "reference") as other:
            key = {"authorization": f"Bearer {server.admin_key}"}
            for _ in range(PAIRS):
                ours.append(_upload(f"{server.url}/api/v1/uploads", file, key))
                theirs.append(_upload(f"{other}/files", file, {}))
    finally:
        server.stop()
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        Figure("tus upload, ours over @tus/server", ratios, "×", "≥ 1.0", "one PATCH of 512 MiB by curl, loopback"),
        Figure("tus upload, ours", tuple(ours), "MiB/s", "–", "synced to disk before it is acknowledged"),
        Figure("tus upload, @tus/server 2.4", tuple(theirs), "MiB/s", "–", "Node.js, file store, not synced"),
    ]


def _upload(endpoint: str, file: Path, more: dict[str, str]) -> float:
    """Announce an upload (one byte longer, so that nothing but storing happens), send it, and delete it."""
    with httpx.Client(headers=TUS | more, timeout=60) as http:
        made = http.post(endpoint, headers={"upload-length": str(SIZE + 1)})
        url = httpx.URL(endpoint).join(made.headers["location"])
        headers = TUS | more | {"upload-offset": "0", "content-type": "application/offset+octet-stream", "expect": ""}
        options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        command = [
            "curl",
            "-sS",
            "-X",
            "PATCH",
            "-T",
            str(file),
            *options,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            str(url),
        ]
        began = time.monotonic()
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seconds = time.monotonic() - began
        if status != "204":
            raise RuntimeError(f"the upload was answered with {status}")
        http.delete(url)
    return SIZE / (1 << 20) / seconds


@contextmanager
def _reference(folder: Path) -> Iterator[str]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(["node", "tus_server.mjs", str(port), str(folder)], cwd=NODE)
    try:
        for _ in range(100):
            time.sleep(0.05)
            try:
                httpx.options(f"http://127.0.0.1:{port}/files")
                break
            except httpx.TransportError:
                continue
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
