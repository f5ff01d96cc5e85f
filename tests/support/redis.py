"""A real Redis server, on a free port, that keeps nothing on disk."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.server import lasting_port


def empty(url: str) -> None:
    """Let a server forget everything."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname or "", at.port or 0), 5) as line:
        line.sendall(b"FLUSHALL\r\n")
        assert line.recv(64).startswith(b"+OK")


class RedisServer:
    """A server that can be killed and started again on its port; it comes back empty."""

    def __init__(self, folder: Path) -> None:
        self.port = lasting_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        program = shutil.which("redis-server")
        assert program, "redis-server is missing; run: make test"
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64).startswith(b"+PONG"):
                    return
            time.sleep(0.05)
        raise AssertionError((self._folder / "redis.log").read_text()[-2000:])

    def empty(self) -> None:
        """Forget everything."""
        empty(self.url)

    def kill(self) -> None:
        """SIGKILL: as when the power fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A fresh server, ended afterwards."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
