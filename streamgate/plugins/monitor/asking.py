"""Asking other processes for their health, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Self

import aiohttp
import msgspec
import structlog

from streamgate.contracts.monitor import CheckResult, Condition, ServiceStatus
from streamgate.ports.discovery import Address
from streamgate.runtime.site import Introduction

MAX_ANSWER = 1 << 20


class _Health(msgspec.Struct):
    status: Condition
    service: str
    version: str
    uptime_s: float
    checks: dict[str, CheckResult] = {}


class Asking:
    """An async context manager: it owns its connections. ``timeout_s``: seconds that each answer may take; ``introduction``:
    with which others tell all that they know."""

    def __init__(self, timeout_s: float, introduction: Introduction) -> None:
        self._timeout_s = timeout_s
        self._introduction = introduction
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def ask(self, service: str, address: Address) -> ServiceStatus:
        """The health of one replica; ``down`` when it does not answer."""
        url = f"http://{address.host}:{address.http_port}/health"
        token = self._introduction.token
        headers = {"authorization": f"Bearer {token(service)}"} if token is not None else {}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.get(url, headers=headers, allow_redirects=False) as answer,
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
