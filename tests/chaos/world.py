"""The product in nine processes, each started again when it ends, on backends behind lines that can be broken."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx

from streamgate.runtime.migrate import migrate
from tests.chaos.faults import Fault, Kind
from tests.support.nats import nats_server
from tests.support.nine import made
from tests.support.postgres import postgres
from tests.support.proxy import Proxy, proxy
from tests.support.redis import redis_server
from tests.support.seaweed import seaweed
from tests.support.server import Server

BOUND_S = 8
"""Seconds that an answer of the gate holds here."""

SETTINGS: dict[str, Any] = {
    "auth.creators": ["*"],
    "auth.default_ttl_s": BOUND_S,
    "streaming.ttl_s": BOUND_S,
    "streaming.max_streams": 0,
    "transcoder.rungs": [240],
    "transcoder.preset": "ultrafast",
    "transcoder.passthrough": False,
    "transcoder.segment_s": 2,
    # Everybody comes from one address here.
    "api_gateway.anonymous_per_s": 1000,
    "api_gateway.anonymous_burst": 10_000,
    "api_gateway.sign_in_per_s": 1000,
    "api_gateway.sign_in_burst": 10_000,
}

AGAIN_S = 0.7
"""After so long a process that ended is started again."""


class Backend(Protocol):
    """A server that keeps its port and data."""

    port: int

    def start(self) -> None:
        """Start it, and return when it answers."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


class Supervisor:
    """Starts services again a moment after they ended, as systemd or Kubernetes would. ``restarts`` by name."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._ended: dict[str, float] = {}
        self._stopping = threading.Event()
        self.restarts: Counter[str] = Counter()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def stop(self) -> None:
        """Start nothing any more."""
        self._stopping.set()
        self._watching.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            now = time.monotonic()
            for name, server in self._servers.items():
                if server.process is None or server.process.poll() is None:
                    continue
                if now - self._ended.setdefault(name, now) >= AGAIN_S:
                    del self._ended[name]
                    self.restarts[name] += 1
                    server.start(wait=False)


class World:
    """What is broken, and where it is reached. ``done``: faults that were really done, with their monotonic beginning."""

    def __init__(
        self, folder: Path, servers: Mapping[str, Server], backends: Mapping[str, Backend], lines: Mapping[str, Proxy]
    ) -> None:
        self.folder = folder
        self.servers = servers
        self.backends = backends
        self.lines = lines
        self.gateway = servers["api-gateway"]
        self.url = self.gateway.url
        self.done: list[tuple[float, Fault]] = []
        self.supervisor = Supervisor(servers)

    def do(self, fault: Fault) -> None:
        """Do it, and undo it after its time; returns when a backend that was killed answers again."""
        began = time.monotonic()
        if fault.target in self.servers:
            self._kill_service(self.servers[fault.target])
        elif fault.kind is Kind.KILL:
            backend = self.backends[fault.target]
            backend.kill()
            time.sleep(fault.seconds)
            backend.start()
        else:
            self._break(self.lines[fault.target], fault)
        self.done.append((began, fault))

    def ready(self, timeout_s: float) -> list[str]:
        """Services that are not ready in time."""
        until = time.monotonic() + timeout_s
        missing = list(self.servers)
        while missing and time.monotonic() < until:
            missing = [name for name in missing if not _is_ready(self.servers[name])]
            time.sleep(0.1)
        return missing

    @staticmethod
    def _kill_service(server: Server) -> None:
        """One that is just being started again may be met before it is ready."""
        until = time.monotonic() + 10
        while server.process is None or server.process.poll() is not None:
            assert time.monotonic() < until, f"{server.service} was not started again"
            time.sleep(0.02)
        server.process.kill()

    @staticmethod
    def _break(line: Proxy, fault: Fault) -> None:
        if fault.kind is Kind.CUT:
            line.cut()
        elif fault.kind is Kind.SLOW:
            line.delay_s = 0.1
        else:
            line.lose()
        time.sleep(fault.seconds)
        line.mend()


def _is_ready(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{server.url}/health/ready", timeout=2).status_code == 200
    return False


@contextmanager
def world(folder: Path, settings: Mapping[str, Any] | None = None) -> Iterator[World]:
    """Everything started and ready, and ended afterwards; logs and data stay in ``folder``."""
    with ExitStack() as stack:
        place = {name: folder / name for name in ("postgresql", "redis", "nats", "s3")}
        for path in place.values():
            path.mkdir(parents=True)
        database = stack.enter_context(postgres(place["postgresql"], durable=True))
        redis = stack.enter_context(redis_server(place["redis"]))
        bus = stack.enter_context(nats_server(place["nats"]))
        objects = stack.enter_context(seaweed(place["s3"]))
        backends: dict[str, Backend] = {"postgresql": database, "redis": redis, "nats": bus, "s3": objects}
        lines = {name: stack.enter_context(proxy(backend.port)) for name, backend in backends.items()}
        name = database.create()
        asyncio.run(migrate(database.url(name)))
        told = {
            "database.url": database.url(name, lines["postgresql"].port),
            "bus.backend": "nats",
            "bus.url": f"nats://127.0.0.1:{lines['nats'].port}",
            "cache.backend": "redis",
            "cache.url": f"redis://127.0.0.1:{lines['redis'].port}/0",
            **objects.settings("films", f"http://127.0.0.1:{lines['s3'].port}"),
            **SETTINGS,
            **(settings or {}),
        }
        servers = made(folder / "services", told)
        for server in servers.values():
            server.start(wait=False)
            stack.callback(server.kill)
        started = World(folder, servers, backends, lines)
        stack.callback(started.supervisor.stop)
        missing = started.ready(120)
        assert not missing, f"not started: {missing}\n{servers[missing[0]].log()[-3000:]}"
        yield started


@contextmanager
def scratch(kept: Path | None) -> Iterator[Path]:
    """``kept``, made; or a folder that is removed afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="streamgate-chaos-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
