"""A service that runs apart from the others: their contracts by gRPC, its own served, and nothing that one process has alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from streamgate.contracts.auth import Access
from streamgate.domain.clock import Clock
from streamgate.domain.errors import ConfigurationError, Unauthenticated
from streamgate.kernel import Assembled, Plugin
from streamgate.openers import BUS, DATABASE, OBJECTS, OPENERS, database_url, dotted
from streamgate.ports.discovery import GRPC_OFFSET, Discovery
from streamgate.runtime.clients import Clients
from streamgate.runtime.health import HealthBoard
from streamgate.runtime.site import Introduction, port_of
from streamgate.runtime.telemetry import Metrics
from streamgate.settings import CoreSettings

GRACE_S = 5.0
"""Seconds that calls under way have to end when the process stops."""


def contracts_of(plugins: Sequence[Plugin[Any]]) -> tuple[set[type], set[type]]:
    """The contracts that the plugins provide, and those they need of others."""
    provided = {kind for plugin in plugins for kind in plugin.provides}
    needed = {kind for plugin in plugins for kind in plugin.requires if "__contract__" in vars(kind)}
    return provided, needed - provided


def required_of(plugins: Sequence[Plugin[Any]]) -> set[str]:
    """What the plugins need opened, by dotted name, with what that needs."""
    names = {dotted(kind) for plugin in plugins for kind in plugin.requires} & OPENERS.keys()
    return names | {before for name in names for before in OPENERS[name][1]}


def check(settings: CoreSettings, plugins: Sequence[Plugin[Any]]) -> None:
    """`ConfigurationError`, in one sentence, for what cannot work between processes."""
    names = required_of(plugins)
    missing = []
    if DATABASE in names and database_url(settings).startswith("sqlite"):
        missing.append("database.url (PostgreSQL; SQLite is of one process)")
    if BUS in names and settings.bus.backend == "memory":
        missing.append("bus.backend: nats (the memory bus is of one process)")
    if OBJECTS in names and settings.storage.backend == "local" and not settings.storage.shared:
        missing.append("storage.backend: s3, or storage.shared: true where all services see the same folder")
    for plugin in plugins:
        section = getattr(settings, plugin.section)
        missing += [
            f"{plugin.section}.{name}"
            for name in type(section).model_fields
            if name.endswith(("_keys_file", "admin_key_file")) and getattr(section, name) is None
        ]
    if settings.service_key_file is None and (missing or DATABASE in names or contracts_of(plugins)[1]):
        missing.append("service_key_file")
    if missing:
        raise ConfigurationError(f"A service that runs apart needs: {'; '.join(missing)}.")


class Apart:
    """The gRPC side of a process. ``stack`` closes what is opened here."""

    def __init__(self, settings: CoreSettings, service: str, plugins: Sequence[Plugin[Any]], clock: Clock) -> None:
        from streamgate.runtime.rpc import tls
        from streamgate.runtime.rpc.codec import Codec
        from streamgate.runtime.rpc.tokens import ServiceSigner, ServiceVerifier, private_key, public_key

        if settings.service_key_file is None:
            raise ConfigurationError("A service that runs apart needs: service_key_file.")
        self._settings = settings
        self._service = service
        self._clock = clock
        self._provided, needed = contracts_of(plugins)
        self._remote = needed | ({Access} - self._provided)
        self._codec = Codec([*self._provided, *self._remote])
        self._signer = ServiceSigner(service, private_key(settings.service_key_file), clock)
        files = settings.grpc_tls
        self._tls = None if files is None else tls.load(files.cert_file, files.key_file, files.ca_file)
        known = {name: public_key(section.public_key_file) for name, section in settings.services.items()}
        self._verifier = ServiceVerifier(service, known)

    def introduction(self) -> Introduction:
        """How this process shows others which service it is."""
        return Introduction(self._signer.token)

    def is_monitor(self, authorization: str | None) -> bool:
        """Whether a request comes from the monitor."""
        scheme, _, token = (authorization or "").partition(" ")
        try:
            return scheme.lower() == "bearer" and self._verifier.caller(token.strip()) == "monitor"
        except Unauthenticated:
            return False

    def remote(self, discovery: Discovery, stack: AsyncExitStack) -> Mapping[type, object]:
        """Contract of another service → what calls it there."""
        from streamgate.runtime.rpc.client import RpcClient

        self._discovery = discovery
        client = RpcClient(self._codec, discovery, self._signer, self._clock, tls=self._tls)
        stack.push_async_callback(client.close)
        return {kind: client.bound(kind) for kind in self._remote}

    async def serve(
        self, assembled: Assembled, authenticator: Any, board: HealthBoard, metrics: Metrics, stack: AsyncExitStack
    ) -> None:
        """Answer calls to the contracts that are provided here, and pass others on, until the stack is left."""
        from streamgate.runtime.rpc.admission import Guard
        from streamgate.runtime.rpc.client import RpcClient
        from streamgate.runtime.rpc.codec import Codec
        from streamgate.runtime.rpc.server import LARGEST, LARGEST_OF_PEOPLE, RpcServer

        settings = self._settings
        forwards = {kind: door for parts in assembled.parts.values() for kind, door in parts.forwards.items()}
        codec = Codec([*self._provided, *forwards], open_only=frozenset(forwards)) if forwards else self._codec
        server = RpcServer(
            codec,
            Guard(self._verifier, authenticator),
            settings.host,
            (settings.port or port_of(self._service)) + GRPC_OFFSET,
            reflected=settings.grpc_reflection,
            clients=Clients(settings.trusted_proxies),
            largest_request=LARGEST_OF_PEOPLE if forwards else LARGEST,
            tls=self._tls,
            by_services_only=not forwards,
            metrics=metrics,
        )
        for parts in assembled.parts.values():
            for kind, provider in parts.provides.items():
                server.add(kind, provider)
        if forwards:
            client = RpcClient(codec, self._discovery, self._signer, self._clock, tls=self._tls)
            stack.push_async_callback(client.close)
            for kind, door in forwards.items():
                server.forward(kind, door, client)
            board.add("calls", client.health)
        stack.push_async_callback(server.stop, GRACE_S)
        await server.start()
        await server.ready()
