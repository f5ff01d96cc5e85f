"""A real NATS server with JetStream, on a free port, with its data in a folder."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.server import lasting_port


class NatsServer:
    """A server that can be killed and started again on its port and data."""

    def __init__(self, folder: Path) -> None:
        self.port = lasting_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        program = shutil.which("nats-server") or str(Path(sys.executable).with_name("nats-server"))
        command = [program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._folder / "data")]
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError((self._folder / "nats.log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL: as when the power fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A fresh server, ended afterwards."""
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
