"""Aggregated health: this process, services that answer, and services that do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamgate.adapters.discovery_static import StaticDiscovery
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import ConfigurationError
from streamgate.domain.identity import Caller, Role
from streamgate.kernel import Check
from streamgate.plugins.monitor.asking import Asking
from streamgate.plugins.monitor.service import StatusService
from streamgate.runtime.health import HealthBoard
from streamgate.runtime.site import Introduction

ADMIN = Caller(account="admin", role=Role.ADMIN)


@asynccontextmanager
async def peer(body: bytes | None) -> AsyncIterator[int]:
    """A service that answers every request with ``body``, or never."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if body is not None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def status_with(services: dict[str, list[str]]) -> dict[str, tuple[str, dict[str, str]]]:
    board = HealthBoard("monitor", "1.2.3", SystemClock())

    async def fine() -> dict[str, Check]:
        return {"": Check("ok")}

    board.add("self", fine)
    async with Asking(0.3, Introduction()) as asking:
        found = await StatusService(board, StaticDiscovery(services, itself="monitor"), asking).status(ADMIN)
    services_found = {s.service: (s.status, {name: c.status for name, c in s.checks.items()}) for s in found.services}
    return {"": (found.status, {}), **services_found}


async def test_alone_it_tells_of_this_process() -> None:
    assert await status_with({}) == {"": ("ok", {}), "monitor": ("ok", {"self": "ok"})}


async def test_the_worst_service_decides() -> None:
    degraded = {
        "status": "degraded",
        "service": "auth",
        "version": "1",
        "uptime_s": 1,
        "checks": {"chain": {"status": "degraded"}},
    }
    async with peer(json.dumps(degraded).encode()) as port:
        found = await status_with({"auth": [f"127.0.0.1:{port}"]})
    assert found[""] == ("degraded", {})
    assert found["auth"] == ("degraded", {"chain": "degraded"})


@pytest.mark.parametrize("body", [None, b"not json", b'{"status": "splendid"}'])
async def test_a_service_that_does_not_answer_properly_is_down(body: bytes | None) -> None:
    async with peer(body) as port:
        found = await status_with({"auth": [f"127.0.0.1:{port}"]})
    assert found["auth"] == ("down", {"reachable": "down"})


async def test_a_check_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgate.runtime.health.CHECK_TIMEOUT_S", 0.05)
    board = HealthBoard("monitor", "1", SystemClock())

    async def hangs() -> dict[str, Check]:
        await asyncio.sleep(5)
        return {}

    board.add("slow", hangs)
    assert (await board.checks())["slow"].status == "down"


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not host:port"):
        StaticDiscovery({"auth": ["nowhere"]}, itself="monitor")
