"""One answer about the health of everything: this process, and every other service that discovery knows."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
import structlog

from streamgate.contracts.monitor import CheckResult, Condition, ServiceStatus, SystemStatus
from streamgate.domain.identity import Caller
from streamgate.ports.discovery import Address, Discovery
from streamgate.runtime.health import ORDER, HealthBoard, worst

MAX_ANSWER = 1 << 20


class _Health(msgspec.Struct):
    status: Condition
    service: str
    version: str
    uptime_s: float
    checks: dict[str, CheckResult] = {}


class StatusService:
    """Implements `contracts.monitor.Status`."""

    def __init__(self, board: HealthBoard, discovery: Discovery, http: aiohttp.ClientSession, timeout_s: float) -> None:
        self._board = board
        self._discovery = discovery
        self._http = http
        self._timeout_s = timeout_s

    async def status(self, caller: Caller) -> SystemStatus:
        others = [
            self._ask(service, address)
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

    async def _ask(self, service: str, address: Address) -> ServiceStatus:
        url = f"http://{address.host}:{address.http_port}/health"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.get(url, allow_redirects=False) as answer,
            ):
                found = msgspec.json.decode(await answer.content.read(MAX_ANSWER), type=_Health)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            structlog.get_logger().warning("service does not answer", peer=service, reason=type(error).__name__)
            away = {"reachable": CheckResult("down", f"{address.host}:{address.http_port}: {type(error).__name__}")}
            return ServiceStatus(service=service, status="down", version="", uptime_s=0.0, checks=away)
        return ServiceStatus(
            service=found.service,
            status=found.status,
            version=found.version,
            uptime_s=found.uptime_s,
            checks=found.checks,
        )
