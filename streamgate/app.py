"""The composition root: settings → adapters (openers.py) → kernel → ASGI app → server."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from streamgate import __version__
from streamgate.apart import Apart
from streamgate.domain.clock import Clock, SystemClock
from streamgate.domain.errors import ConfigurationError, Unavailable
from streamgate.domain.identity import ANONYMOUS, Caller
from streamgate.kernel import Assembled, Binding, DirectBinding, Host, Plugin
from streamgate.openers import BUS, DATABASE, DISCOVERY, OBJECTS, OUTBOX, REDIS, Opening, database_url, given_for
from streamgate.ports.discovery import GRPC_OFFSET, Address, Discovery
from streamgate.runtime.connection import AtOnce, bounded
from streamgate.runtime.health import HealthBoard, helpful, reachable
from streamgate.runtime.listening import bound
from streamgate.runtime.site import Introduction, Residents, Site, port_of
from streamgate.runtime.telemetry import Metrics
from streamgate.runtime.vitals import Vitals
from streamgate.settings import CoreSettings

CUT_OFF_S = 3.0
"""Seconds that requests have to end after they were cut off."""


def site_of(settings: CoreSettings, service: str) -> Site:
    """The facts about this installation that the settings say or imply."""
    port = settings.port or port_of(service)
    public = settings.public_url or f"http://{settings.host}:{port}"
    origins = settings.allowed_origins if settings.allowed_origins is not None else (public,)
    return Site(
        public_url=public,
        media_url=(settings.delivery.media_url or public).rstrip("/"),
        allowed_origins=frozenset(origin.rstrip("/") for origin in origins),
        data_dir=settings.data_dir.resolve(),
        environment=settings.environment,
        service=service,
        version=__version__,
        redirect_s=settings.delivery.redirect_s if settings.delivery.mode == "redirect" else None,
    )


def advertised(settings: CoreSettings) -> str:
    """The host at which other services reach this process."""
    if settings.discovery.advertise:
        return settings.discovery.advertise
    wildcard = settings.host in {"0.0.0.0", "::"}  # noqa: S104 (compared, not listened on)
    return socket.gethostbyname(socket.gethostname()) if wildcard else settings.host


class Running:
    """A started process: its ASGI app, its health, and the way to make it stop.

    ``apart``: other services run in other processes and are called by gRPC.
    """

    def __init__(self, settings: CoreSettings, service: str, *, apart: bool = False) -> None:
        self.settings = settings
        self.apart = apart
        self.clock: Clock = SystemClock()
        self.site = site_of(settings, service)
        self.board = HealthBoard(service, __version__, self.clock)
        self.metrics = Metrics(service, __version__)
        self.vitals = Vitals(self.site.data_dir, self.metrics)
        self.board.add("process", self.vitals.health)
        self.draining = asyncio.Event()
        self.ready = False
        self.discovery: Discovery | None = None
        self.assembled: Assembled
        self.app: Callable[[Any, Any, Any], Awaitable[None]]
        self.routes: list[Any] = []
        self.at_once: dict[bytes, AtOnce] = {}

    @asynccontextmanager
    async def started(self, plugins: Sequence[Plugin[Any]], bind: Binding) -> AsyncIterator[Running]:
        """Open what is needed, start the plugins, connect facts and signals, build the app; undo it all afterwards."""
        sections = {plugin.name: getattr(self.settings, plugin.section) for plugin in plugins}
        own: dict[type, object] = {Clock: self.clock, Site: self.site, HealthBoard: self.board, Metrics: self.metrics}
        own[Residents] = Residents(frozenset(sections))
        embedded = database_url(self.settings).startswith("sqlite")
        async with AsyncExitStack() as stack:
            opening = Opening(self.settings, self.site, self.clock, self.draining, embedded, stack)
            apart = Apart(self.settings, self.site.service, plugins, self.clock) if self.apart else None
            own[Introduction] = apart.introduction() if apart is not None else Introduction()
            given = await given_for(plugins, opening, own, also=(Discovery,) if apart else ())
            if apart is not None:
                given.update(apart.remote(opening.opened[DISCOVERY], stack))
            host = Host(plugins, settings=sections, given=given, bind=bind, draining=self.draining)
            self.assembled = await stack.enter_async_context(host.running())
            await self._connect(opening, stack)
            self._build_app(opening, apart.is_monitor if apart is not None else lambda _: False)
            if apart is not None:
                await apart.serve(self.assembled, self.authenticator(), self.board, self.metrics, stack)
            await stack.enter_async_context(self.vitals.measuring())
            yield self

    async def _connect(self, opening: Opening, stack: AsyncExitStack) -> None:
        """Facts and signals to the plugins that listen; then the relay, so that nothing is delivered to nobody."""
        for check, name in (("database", DATABASE), ("bus", BUS), ("objects", OBJECTS)):
            if name in opening.opened:
                self.board.add(check, reachable(opening.opened[name]))
        self.discovery = opening.opened.get(DISCOVERY)
        for check, helper in (("redis", opening.opened.get(REDIS)), ("discovery", self.discovery)):
            if helper is not None and (check != "discovery" or self.settings.discovery.backend != "static"):
                self.board.add(check, helpful(helper))
        if BUS in opening.opened:
            from streamgate.runtime.events import wire

            for name, parts in self.assembled.parts.items():
                await stack.enter_async_context(wire(opening.opened[BUS], name, parts.listens))
        elif deaf := [name for name, parts in self.assembled.parts.items() if parts.listens]:
            raise ConfigurationError(f"Plugin {deaf[0]} listens, but its `requires` does not name Bus.")
        if OUTBOX in opening.opened:
            await stack.enter_async_context(opening.opened[OUTBOX].relaying())

    def _build_app(self, opening: Opening, is_monitor: Callable[[str | None], bool]) -> None:
        from streamgate.runtime.clients import Clients
        from streamgate.runtime.dispatch import Dispatch
        from streamgate.runtime.edge import Edge
        from streamgate.runtime.http import api

        mounts: dict[str, Any] = {}
        middleware: list[Callable[[Any], Any]] = []
        for name, parts in self.assembled.parts.items():
            self.routes += parts.routes
            mounts.update(parts.mounts)
            self.at_once |= {p.encode(): m.at_once for p, m in parts.mounts.items() if hasattr(m, "at_once")}
            middleware += parts.middleware
            if parts.health is not None:
                self.board.add(name, parts.health)
        authenticator = self.authenticator()
        token = self.settings.metrics_token
        app: Any = Dispatch(
            api(self.routes, authenticator),
            mounts,
            authenticator=authenticator,
            board=self.board,
            metrics=self.metrics,
            metrics_token=token.get_secret_value() if token else None,
            is_ready=lambda: self.ready and not self.draining.is_set(),
            is_monitor=is_monitor,
        )
        for wrap in middleware:
            app = wrap(app)
        self.app = Edge(
            app,
            metrics=self.metrics,
            clients=Clients(self.settings.trusted_proxies),
            body_timeout_s=self.settings.body_timeout,
        )

    async def present(self) -> None:
        """Let other services find this process, until it begins to drain."""
        if self.discovery is None:
            return
        port = self.settings.port or port_of(self.site.service)
        address = Address(advertised(self.settings), port, port + GRPC_OFFSET)
        async with self.discovery.present(self.site.service, address):
            await self.draining.wait()

    def authenticator(self) -> Any:
        """Verifies credentials at the edge; where no auth service can be reached, nobody is let in."""
        from streamgate.contracts.auth import Access

        access = self.assembled.bound.get(Access)
        if access is None:
            return _NobodyKnown()
        from streamgate.runtime.identity import Authenticator

        return Authenticator(self.site, access, self.clock)


class _NobodyKnown:
    """Stands in where credentials cannot be verified: anonymous callers pass as such, credentials are refused."""

    async def caller(self, authorization: str | None) -> Caller:
        if authorization is None:
            return ANONYMOUS
        raise Unavailable("This process cannot verify credentials now.", retry_after=5)


async def serve(
    settings: CoreSettings,
    plugins: Sequence[Plugin[Any]],
    service: str,
    announce: Callable[[Running], None],
    *,
    apart: bool = False,
) -> None:
    """Run a service until SIGTERM or SIGINT, then drain and stop within ``shutdown_timeout``; a second signal stops at once.

    ``announce`` is called once requests are answered. Raises `ConfigurationError` when the process cannot start.
    """
    running = Running(settings, service, apart=apart)
    loop = asyncio.get_running_loop()
    forced = _Forced(settings.shutdown_timeout)
    async with running.started(plugins, DirectBinding()):
        server = _Server(_config(running, service))

        def stop() -> None:
            if running.draining.is_set():
                os._exit(1)
            running.draining.set()
            server.should_exit = True
            forced.start(loop)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)

        async def tell_when_ready() -> None:
            while not server.started:  # noqa: ASYNC110 (uvicorn offers no event)
                await asyncio.sleep(0.01)
            running.ready = True
            gc.enable()
            gc.freeze()
            announce(running)
            await running.present()

        telling = asyncio.create_task(tell_when_ready())
        try:
            await server.serve(bound(server.config.host, server.config.port))
        finally:
            running.draining.set()
            if running.ready:
                await asyncio.wait({telling}, timeout=CUT_OFF_S)
            telling.cancel()
            if server.server_state.tasks:
                # Requests that were cut off end before what they work with is closed.
                await asyncio.wait(set(server.server_state.tasks), timeout=CUT_OFF_S)
    structlog.get_logger().info("stopped")


def _config(running: Running, service: str) -> uvicorn.Config:
    settings = running.settings
    return uvicorn.Config(
        running.app,
        host=settings.host,
        port=settings.port if settings.port is not None else port_of(service),
        http=bounded(settings.header_timeout, running.at_once),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout * 0.5)),
    )


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _where(task: asyncio.Task[Any]) -> str:
    """What a task is and the line at which it waits, for whoever asks what held up a stop."""
    frame = next(iter(task.get_stack(limit=1)), None)
    line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else "nowhere"
    return f"{getattr(task.get_coro(), '__qualname__', task.get_name())} at {line}"


class _Forced:
    """Ends the process when a stop takes longer than it may; everything acknowledged is durable by then anyway."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self._seconds, self._force)

    def _force(self) -> None:
        waits = sorted(_where(task) for task in asyncio.all_tasks())
        structlog.get_logger().error("the stop took too long and was forced", seconds=self._seconds, waits=waits)
        os._exit(1)
