"""The replicas of a service, in the order in which a request tries them."""

from __future__ import annotations

from streamgate.domain.clock import Clock
from streamgate.domain.errors import Unavailable
from streamgate.ports.discovery import Address, Discovery

SPARED_S = 5.0
"""A replica that took no connection is tried last for so long."""


class Replicas:
    """Round robin over what discovery knows of each service."""

    def __init__(self, discovery: Discovery, clock: Clock) -> None:
        self._discovery = discovery
        self._clock = clock
        self._turn: dict[str, int] = {}
        self._spared: dict[Address, float] = {}

    async def of(self, service: str) -> list[Address]:
        """At least one; `Unavailable` when there is none."""
        known = await self._discovery.addresses(service)
        if not known:
            raise Unavailable(f"The {service} service is not there now.", retry_after=5)
        turn = self._turn[service] = (self._turn.get(service, -1) + 1) % len(known)
        ordered = [*known[turn:], *known[:turn]]
        if self._spared:
            now = self._clock.monotonic()
            self._spared = {address: until for address, until in self._spared.items() if until > now}
            ordered.sort(key=lambda address: address in self._spared)
        return ordered

    def spare(self, address: Address) -> None:
        """It took no connection."""
        self._spared[address] = self._clock.monotonic() + SPARED_S
