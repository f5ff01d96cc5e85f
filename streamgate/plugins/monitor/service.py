"""One answer about the health of everything: this process, and every other service that discovery knows."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from streamgate.contracts.monitor import CheckResult, Condition, ServiceStatus, SystemStatus
from streamgate.domain.identity import Caller
from streamgate.ports.discovery import Address, Discovery
from streamgate.runtime.health import ORDER, HealthBoard, worst


class Asks(Protocol):
    """Asks other processes for their health."""

    async def ask(self, service: str, address: Address) -> ServiceStatus:
        """The health of one replica; ``down`` when it does not answer."""
        ...


class StatusService:
    """Implements `contracts.monitor.Status`. ``asking`` None: there is nobody else."""

    def __init__(self, board: HealthBoard, discovery: Discovery, asking: Asks | None) -> None:
        self._board = board
        self._discovery = discovery
        self._asking = asking

    async def status(self, caller: Caller) -> SystemStatus:
        others = []
        if self._asking is not None:
            others = [
                self._asking.ask(service, address)
                for service in await self._discovery.services()
                for address in await self._discovery.addresses(service)
            ]
        services = tuple(await asyncio.gather(self._here(), *others))
        return SystemStatus(status=max((s.status for s in services), key=ORDER.index), services=services)

    async def _here(self) -> ServiceStatus:
        checks = await self._board.checks()
        return ServiceStatus(
            service=self._board.service,
            status=msgspec.convert(worst(checks), Condition),
            version=self._board.version,
            uptime_s=self._board.uptime_s,
            checks={name: msgspec.convert(check, CheckResult, from_attributes=True) for name, check in checks.items()},
        )
