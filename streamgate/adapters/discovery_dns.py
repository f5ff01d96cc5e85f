"""Services by DNS: every address of a service's name is a replica, as behind a headless service of Kubernetes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from streamgate.domain.clock import Clock
from streamgate.ports.discovery import GRPC_OFFSET, Address, Discovery

REFRESH_S = 5.0
RESOLVE_S = 2.0

Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
"""The addresses of a name, empty when it has none; `OSError` or `TimeoutError` when that cannot be found out now."""


@dataclass(slots=True)
class _Known:
    addresses: tuple[Address, ...] = ()
    until: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class DnsDiscovery(Discovery):
    """``template``: a name with ``{service}`` in it. ``ports``: HTTP port of each service; gRPC stands `GRPC_OFFSET` above it.

    A name is looked up again when its answer is older than `REFRESH_S`; one that does not exist has no replicas.
    """

    def __init__(
        self, template: str, ports: Mapping[str, int], *, itself: str, clock: Clock, resolve: Resolve | None = None
    ) -> None:
        self._template = template
        self._ports = {name: port for name, port in ports.items() if name != itself}
        self._clock = clock
        self._resolve = resolve or system_resolve
        self._known = {name: _Known() for name in self._ports}
        self._answers = True

    async def services(self) -> tuple[str, ...]:
        return tuple(sorted(self._ports))

    async def addresses(self, service: str) -> tuple[Address, ...]:
        known = self._known.get(service)
        if known is None:
            return ()
        async with known.asking:
            if self._clock.monotonic() >= known.until:
                await self._look(service, known)
        return known.addresses

    async def healthy(self) -> bool:
        return self._answers

    async def _look(self, service: str, known: _Known) -> None:
        port = self._ports[service]
        try:
            async with asyncio.timeout(RESOLVE_S):
                hosts = await self._resolve(self._template.format(service=service))
        except (OSError, TimeoutError) as error:
            if self._answers:
                structlog.get_logger().warning("DNS does not answer", service=service, reason=type(error).__name__)
            self._answers = False
        else:
            self._answers = True
            known.addresses = tuple(Address(host, port, port + GRPC_OFFSET) for host in sorted(set(hosts)))
        known.until = self._clock.monotonic() + REFRESH_S


async def system_resolve(name: str) -> tuple[str, ...]:
    """As the system resolves it: IPv4 and IPv6 addresses."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
            return ()
        raise
    return tuple(str(address[0]) for *_, address in found)
