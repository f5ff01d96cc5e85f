"""Statistics of the cache, and purging it here and everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.cache_memory import MemoryCache
from streamgate.contracts.cache import CachePolicy, Purge, PurgeRequest
from streamgate.domain.errors import Forbidden, Unauthenticated, ValidationFailed
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.kernel import Context, LoopbackBinding, Parts
from streamgate.plugins.cache.plugin import plugin
from streamgate.plugins.cache.settings import CacheSettings
from streamgate.ports.bus import Bus
from streamgate.ports.cache import Cache
from streamgate.runtime.events import send_signal, wire
from streamgate.runtime.http import api
from streamgate.runtime.telemetry import Metrics
from streamgate.settings import load
from tests.support.clock import FakeClock

CREATOR = Caller(account="eip155:1:0xaa", role=Role.CREATOR)
ADMIN = Caller(account="admin", role=Role.ADMIN)


class Process:
    """The cache plugin in a process of its own, on a bus that it shares."""

    def __init__(self, parts: Parts, cache: MemoryCache, metrics: Metrics) -> None:
        self.routes = parts.routes
        self.policy: Any = LoopbackBinding()(CachePolicy, parts.provides[CachePolicy])
        self.cache = cache
        self.metrics = metrics


@asynccontextmanager
async def process(bus: MemoryBus, clock: FakeClock, name: str = "cache") -> AsyncIterator[Process]:
    cache, metrics = MemoryCache(10_000, clock=clock), Metrics("cache", "1")
    needs: dict[type, object] = {Cache: cache, Bus: bus, Metrics: metrics}
    async with plugin.setup(Context("cache", CacheSettings(most_tags=3), needs, asyncio.Event())) as parts:
        async with wire(bus, name, parts.listens):
            yield Process(parts, cache, metrics)


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        yield bus


@pytest.fixture
async def here(bus: MemoryBus, clock: FakeClock) -> AsyncIterator[Process]:
    async with process(bus, clock) as here:
        yield here


async def empty(cache: MemoryCache, key: str) -> None:
    async with asyncio.timeout(2):
        while await cache.get(key) is not None:
            await asyncio.sleep(0)


async def test_statistics_are_those_of_the_cache(here: Process) -> None:
    await here.cache.set("a", b"12345", 10)
    await here.cache.get("a")
    await here.cache.get("b")
    (tier,) = (await here.policy.statistics(ADMIN)).tiers
    assert (tier.name, tier.entries, tier.bytes, tier.limit_bytes) == ("memory", 1, 5, 10_000)
    assert (tier.hits, tier.misses, tier.evictions) == (1, 1, 0)


async def test_a_purge_counts_each_entry_once_and_leaves_the_rest(here: Process) -> None:
    await here.cache.set("a", b"1", 10, ("asset:1", "poster"))
    await here.cache.set("b", b"2", 10, ("asset:1",))
    await here.cache.set("c", b"3", 10, ("asset:2",))
    assert (await here.policy.purge(ADMIN, PurgeRequest(tags=("asset:1", "poster", "asset:1")))).purged == 2
    await asyncio.sleep(0.01)
    assert await here.cache.get("c") == b"3"
    assert (await here.policy.purge(ADMIN, PurgeRequest(tags=("asset:1",)))).purged == 0
    assert (await here.policy.purge(ADMIN, PurgeRequest())).purged == 1


async def test_a_purge_reaches_every_process(here: Process, bus: MemoryBus, clock: FakeClock) -> None:
    async with process(bus, clock, "elsewhere") as there:
        await there.cache.set("a", b"1", 10, ("asset:1",))
        await there.cache.set("b", b"2", 10, ("asset:2",))
        assert (await here.policy.purge(ADMIN, PurgeRequest(tags=("asset:1",)))).purged == 0
        await empty(there.cache, "a")
        assert await there.cache.get("b") == b"2"


async def test_a_purge_that_somebody_else_signals_is_obeyed(here: Process, bus: MemoryBus) -> None:
    await here.cache.set("a", b"1", 10, ("asset:1",))
    await send_signal(bus, Purge(tags=("asset:1",)))
    await empty(here.cache, "a")


@pytest.mark.parametrize(("caller", "refusal"), [(ANONYMOUS, Unauthenticated), (CREATOR, Forbidden)])
async def test_the_cache_is_for_administrators(here: Process, caller: Caller, refusal: type[Exception]) -> None:
    await here.cache.set("a", b"1", 10)
    for call in (here.policy.statistics(caller), here.policy.purge(caller, PurgeRequest())):
        with pytest.raises(refusal):
            await call
    assert await here.cache.get("a") == b"1"


@pytest.mark.parametrize("tags", [("a", "b", "c", "d"), ("",), ("x" * 201,)])
async def test_tags_that_cannot_be_are_refused(here: Process, tags: tuple[str, ...]) -> None:
    with pytest.raises(ValidationFailed):
        await here.policy.purge(ADMIN, PurgeRequest(tags=tags))


class Bearer:
    async def caller(self, authorization: str | None) -> Caller:
        return {None: ANONYMOUS, "creator": CREATOR, "admin": ADMIN}[authorization]


async def test_the_routes_give_what_the_contract_says(here: Process) -> None:
    await here.cache.set("a", b"1", 10, ("asset:1",))
    transport = httpx.ASGITransport(app=api(here.routes, Bearer()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        as_admin = {"authorization": "admin"}
        stats = await http.get("/api/v1/cache/stats", headers=as_admin)
        assert stats.json()["tiers"][0]["entries"] == 1
        purged = await http.post("/api/v1/cache/purge", json={"tags": ["asset:1"]}, headers=as_admin)
        assert (purged.status_code, purged.json()) == (200, {"purged": 1})
        assert (await http.post("/api/v1/cache/purge", json={"tag": "x"}, headers=as_admin)).status_code == 422
        assert (await http.post("/api/v1/cache/purge", json={})).status_code == 401
        assert (await http.get("/api/v1/cache/stats", headers={"authorization": "creator"})).status_code == 403


async def test_the_statistics_are_metrics_too(bus: MemoryBus, clock: FakeClock) -> None:
    async with process(bus, clock) as here:
        await asyncio.sleep(0.01)
        text = generate_latest(here.metrics.registry).decode()
    assert 'sg_cache_bytes{tier="memory"} 0.0' in text
    assert 'sg_cache_requests_total{result="hit",tier="memory"} 0.0' in text


def test_the_section_holds_the_settings_of_the_process_and_of_the_service() -> None:
    environ = {"STREAMGATE_CACHE__MOST_TAGS": "7", "STREAMGATE_CACHE__MEMORY_BYTES": "2097152"}
    section: Any = load([plugin], service="cache", environ=environ).cache
    assert (section.most_tags, section.memory_bytes, section.backend) == (7, 2_097_152, "memory")
    assert isinstance(section, CacheSettings)
