"""A real S3 service: SeaweedFS, from its package, on free ports, with its data in a folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.server import free_port

ACCESS_KEY, SECRET_KEY = "streamgate-tests", "a-secret-of-the-tests-only"


class ObjectService:
    """Where it answers."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    def settings(self, bucket: str) -> dict[str, object]:
        """What a server is told to keep its objects there."""
        return {
            "storage.backend": "s3",
            "storage.s3": {
                "endpoint": self.endpoint,
                "bucket": bucket,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "create_bucket": True,
            },
        }


def _ports(count: int) -> list[int]:
    """Free ports whose companions (port + 10000) are ports too."""
    found: list[int] = []
    while len(found) < count:
        port = free_port()
        if port < 50_000 and port not in found:
            found.append(port)
    return found


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[ObjectService]:
    """A fresh service, ended afterwards."""
    master, volume, filer, s3 = _ports(4)
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    (folder / "data").mkdir()
    command = [
        *(program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={s3}"),
        *(f"-s3.config={config}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        # Two more servers of its own would take fixed ports, so that no two services could run side by side.
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.telemetry=false", "-volume.max=1000", "-master.volumeSizeLimitMB=64"),
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(process, s3, folder / "weed.log")
        yield ObjectService(s3)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/status", timeout=1).status_code < 500:
                return
        time.sleep(0.1)
    raise AssertionError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")
