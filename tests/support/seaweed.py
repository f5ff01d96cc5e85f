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

from tests.support.server import lasting_port

START_S = 60
ACCESS_KEY, SECRET_KEY = "streamgate-tests", "a-secret-of-the-tests-only"


class ObjectService:
    """A service that can be killed and started again on its ports and data. ``endpoint``: where it is reached."""

    def __init__(self, folder: Path) -> None:
        # Each has a companion (port + 10000).
        master, volume, filer, self.port = (lasting_port(10_000) for _ in range(4))
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = folder / "s3.json"
        config.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": actions}]})
        )
        program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
        (folder / "data").mkdir()
        self._command = [
            *(program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"),
            *(f"-s3.port={self.port}", f"-s3.config={config}", f"-master.port={master}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}"),
            # Two more servers of its own would take fixed ports, so that no two services could run side by side.
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-volume.max=1000", "-master.volumeSizeLimitMB=64"),
        ]

    def start(self) -> None:
        """Start it, and return when it answers.

        After SIGKILL it sometimes does not become the leader of the cluster that it is all of, and ends: then once more.
        """
        log = self._folder / "weed.log"
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self._folder
                )
            if _answers(self._process, self.port, until):
                return
        raise AssertionError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """SIGKILL: as when the power fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def settings(self, bucket: str, endpoint: str | None = None) -> dict[str, object]:
        """What a server is told to keep its objects there. ``endpoint``: another way to it."""
        return {
            "storage.backend": "s3",
            "storage.s3": {
                "endpoint": endpoint or self.endpoint,
                "bucket": bucket,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
                "create_bucket": True,
            },
        }


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[ObjectService]:
    """A fresh service, ended afterwards."""
    service = ObjectService(folder)
    try:
        service.start()
        yield service
    finally:
        # Asked to end it would take ten seconds, and nothing of it is needed any more.
        service.kill()


def _answers(process: subprocess.Popen[bytes], port: int, until: float) -> bool:
    """Wait for its first answer; False when it has ended before, or it is too late."""
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/status", timeout=1).status_code < 500:
                return True
        time.sleep(0.1)
    return False
