"""A real ``streamgate serve`` process on a free port, in a folder of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from httpx._transports import default

# A client makes a TLS context for itself, which takes 20 ms; no test speaks TLS, so all share one.
default.create_ssl_context = functools.cache(default.create_ssl_context)

START_TIMEOUT_S = 120.0


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_LASTING: set[int] = set()


def lasting_port(*offsets: int) -> int:
    """A free port for a server that is ended and started again on it, with those so far behind it free too.

    It lies below those that the system gives to outgoing connections, so that none of them takes it meanwhile.
    """
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        top = least - max(offsets, default=0)
        port = random.randrange(10_000, top if top > 11_000 else 50_000)
        wanted = {port, *(port + offset for offset in offsets)}
        if wanted & _LASTING:
            continue
        try:
            for one in wanted:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", one))
        except OSError:
            continue
        _LASTING.update(wanted)
        return port


class Server:
    """A server process. ``settings``: dotted setting → value, given through the environment."""

    def __init__(
        self,
        data_dir: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        port: int | None = None,
        service: str | None = None,
        python: Path | None = None,
    ) -> None:
        self.service = service
        self.python = str(python or sys.executable)
        self.data_dir = data_dir
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = dict(settings or {})
        self.log_path = data_dir.with_name(f"{data_dir.name}.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.services: Mapping[str, Server] = {}

    def of(self, service: str) -> Server:
        """The process that runs a service of the product whose door this is: itself, where one process runs all."""
        return self.services.get(service, self)

    def start(self, *, wait: bool = True) -> float:
        """Start it; seconds until it was ready. Fails with its log when it does not come up."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGATE_")}
        for name, value in self.settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            environ[f"STREAMGATE_{name.replace('.', '__').upper()}"] = text
        command = [
            self.python,
            "-m",
            "streamgate",
            "serve",
            "--port",
            str(self.port),
            "--data-dir",
            str(self.data_dir),
        ]
        if self.service is not None:
            command += ["--mode", "microservice", "--service", self.service]
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self.wait_ready(began)
        return time.monotonic() - began

    def wait_ready(self, began: float) -> None:
        """Return when it answers that it is ready."""
        while time.monotonic() - began < START_TIMEOUT_S:
            if self.process is None or self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health/ready", timeout=1).status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log()[-4000:]}")

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        self.tell_to_stop()
        return self.wait_for_end(timeout_s)

    def tell_to_stop(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait_for_end(self, timeout_s: float = 30.0) -> int:
        """The exit code, once it has ended."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop:\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """SIGKILL: as when the power fails."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def admin_key(self) -> str:
        """The administrator's key."""
        return (self.data_dir / "admin.key").read_text().strip()

    def client(self, token: str | None = None, **more: Any) -> httpx.Client:
        """An HTTP client that calls as the bearer of ``token``, or as nobody."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **more)

    def admin(self) -> httpx.Client:
        """An HTTP client that calls as the administrator."""
        return self.client(self.admin_key)


@contextlib.contextmanager
def serving(data_dir: Path, settings: Mapping[str, Any] | None = None, *, port: int | None = None) -> Iterator[Server]:
    """A started server, ended afterwards."""
    server = Server(data_dir, settings, port=port)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def wait_for(condition: Any, timeout_s: float = 60.0, every_s: float = 0.1) -> Any:
    """The first true value of ``condition()``; fails after the time."""
    until = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"still {found!r} after {timeout_s:.0f} s")
        time.sleep(every_s)
