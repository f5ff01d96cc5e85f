"""What every cache promises, held against each adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamgate.adapters.cache_memory import LEAST_BYTES, MemoryCache
from streamgate.adapters.cache_redis import RedisCache
from streamgate.adapters.redis_link import RedisLink
from streamgate.domain import deadline
from streamgate.ports.cache import Cache
from tests.support.clock import FakeClock
from tests.support.redis import RedisServer


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Cache]:
    memory = MemoryCache(4000, clock=clock)
    if request.param == "memory":
        yield memory
        return
    server: RedisServer = request.getfixturevalue("redis_empty")
    async with RedisLink(server.url, clock) as link:
        yield RedisCache(link, memory, clock=clock)


class Source:
    """Something slow to load; counts how often it is asked."""

    def __init__(self, value: bytes = b"value") -> None:
        self.value = value
        self.error: Exception | None = None
        self.asked = 0
        self.ended = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> bytes:
        self.asked += 1
        value = self.value
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.ended += 1
        return value

    async def begun(self, times: int = 1) -> None:
        async with asyncio.timeout(2):
            while self.asked < times:
                await asyncio.sleep(0)


async def test_what_is_set_is_there_until_its_time_is_over(cache: Cache, clock: FakeClock) -> None:
    assert await cache.get("k") is None
    await cache.set("k", b"1", 10)
    clock.advance(9.9)
    assert await cache.get("k") == b"1"
    clock.advance(0.2)
    assert await cache.get("k") is None


async def test_the_newer_value_and_its_time_count(cache: Cache, clock: FakeClock) -> None:
    await cache.set("k", b"1", 10, ("old",))
    clock.advance(8)
    await cache.set("k", b"2", 10, ("new",))
    clock.advance(8)
    assert await cache.purge(("old",)) == 0
    assert await cache.get("k") == b"2"
    assert await cache.purge(("new",)) == 1


async def test_an_empty_value_is_a_value_and_no_time_is_none(cache: Cache) -> None:
    await cache.set("empty", b"", 10)
    assert await cache.get("empty") == b""
    await cache.set("gone", b"x", 0)
    assert await cache.get("gone") is None


async def test_a_deleted_key_is_gone(cache: Cache) -> None:
    await cache.set("k", b"1", 10)
    await cache.delete("k")
    await cache.delete("never")
    assert await cache.get("k") is None


async def test_a_purge_drops_what_carries_one_of_the_tags_and_counts_it(cache: Cache) -> None:
    await cache.set("a", b"1", 10, ("x", "y"))
    await cache.set("b", b"2", 10, ("y",))
    await cache.set("c", b"3", 10, ("z",))
    await cache.set("d", b"4", 10)
    assert await cache.purge(("x", "y")) == 2
    assert [await cache.get(k) for k in "abcd"] == [None, None, b"3", b"4"]
    assert await cache.purge(("x",)) == 0
    assert await cache.purge(()) == 2
    assert await cache.get("d") is None


async def test_a_value_is_loaded_once_for_all_who_wait(cache: Cache) -> None:
    source = Source()
    waiting = [asyncio.create_task(cache.get_or_load("k", 10, source)) for _ in range(20)]
    await source.begun()
    source.gate.set()
    assert await asyncio.gather(*waiting) == [b"value"] * 20
    assert await cache.get_or_load("k", 10, source) == b"value"
    assert source.asked == 1


async def test_an_error_reaches_everybody_who_waits_and_is_not_kept(cache: Cache) -> None:
    source = Source()
    source.error = LookupError("away")
    waiting = [asyncio.create_task(cache.get_or_load("k", 10, source)) for _ in range(3)]
    await source.begun()
    source.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 3
    source.error = None
    assert await cache.get_or_load("k", 10, source) == b"value"
    assert source.asked == 2


async def test_who_gives_up_waiting_takes_nothing_from_the_others(cache: Cache) -> None:
    source = Source()
    first = asyncio.create_task(cache.get_or_load("k", 10, source))
    await source.begun()
    second = asyncio.create_task(cache.get_or_load("k", 10, source))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert await second == b"value"
    assert source.asked == 1
    assert await cache.get("k") == b"value"


async def test_what_nobody_waits_for_any_more_is_not_loaded_to_its_end(cache: Cache) -> None:
    source = Source()
    waiting = [asyncio.create_task(cache.get_or_load("k", 10, source)) for _ in range(2)]
    await source.begun()
    for waiter in waiting:
        waiter.cancel()
    await asyncio.wait(waiting)
    again = asyncio.create_task(cache.get_or_load("k", 10, source))
    await source.begun(2)
    source.gate.set()
    assert await again == b"value"
    assert (source.asked, source.ended) == (2, 1)


async def test_a_purge_during_a_load_keeps_its_result_out_and_the_next_one_asks_again(cache: Cache) -> None:
    source = Source(b"old")
    first = asyncio.create_task(cache.get_or_load("k", 10, source, ("t",)))
    await source.begun()
    await cache.purge(("t",))
    source.value = b"new"
    second = asyncio.create_task(cache.get_or_load("k", 10, source, ("t",)))
    await source.begun(2)
    source.gate.set()
    assert (await first, await second) == (b"old", b"new")
    assert await cache.get("k") == b"new"


@pytest.mark.parametrize("how", ["delete", "purge everything", "set"])
async def test_a_load_that_was_overtaken_does_not_come_back(cache: Cache, how: str) -> None:
    source = Source(b"old")
    loading = asyncio.create_task(cache.get_or_load("k", 10, source))
    await source.begun()
    match how:
        case "delete":
            await cache.delete("k")
        case "set":
            await cache.set("k", b"new", 10)
        case _:
            await cache.purge(())
    source.gate.set()
    assert await loading == b"old"
    assert await cache.get("k") == (b"new" if how == "set" else None)


async def test_a_purge_of_other_tags_leaves_a_load_alone(cache: Cache) -> None:
    source = Source()
    loading = asyncio.create_task(cache.get_or_load("k", 10, source, ("t",)))
    await source.begun()
    await cache.purge(("other",))
    source.gate.set()
    await loading
    assert await cache.get("k") == b"value"


async def test_a_load_is_not_bound_by_the_deadline_of_the_first_who_waits(cache: Cache) -> None:
    found: list[float | None] = []

    async def load() -> bytes:
        found.append(deadline.remaining_s())
        return b""

    async with deadline.within(5):
        await cache.get_or_load("k", 10, load)
    assert found == [None]


async def test_statistics_count_what_was_asked_and_what_is_there(cache: Cache) -> None:
    await cache.set("a", b"12345", 10)
    await cache.get("a")
    await cache.get("a")
    await cache.get("b")
    tier, *_ = await cache.tiers()
    assert (tier.entries, tier.bytes, tier.hits, tier.misses, tier.evictions) == (1, 5, 2, 1, 0)
    await cache.purge(())
    tier, *_ = await cache.tiers()
    assert (tier.entries, tier.bytes) == (0, 0)


async def test_what_was_made_instead_is_at_hand_for_a_while_and_counts_as_a_miss(
    cache: Cache, clock: FakeClock
) -> None:
    assert cache.peek("a") is None
    cache.keep("a", b"12345", 10, ("film",))
    assert cache.peek("a") == await cache.get("a") == b"12345"
    tier, *_ = await cache.tiers()
    assert (tier.entries, tier.bytes, tier.hits, tier.misses) == (1, 5, 2, 1)
    clock.advance(11)
    assert cache.peek("a") is None
    cache.keep("a", b"1", 10, ("film",))
    await cache.purge(("film",))
    assert cache.peek("a") is None


async def test_in_memory_the_least_recently_used_goes_first(clock: FakeClock) -> None:
    cache = MemoryCache(400, clock=clock)
    for key in "abcd":
        await cache.set(key, bytes(100), 10)
    await cache.get("a")
    await cache.set("e", bytes(100), 10)
    assert [await cache.get(k) is not None for k in "abcde"] == [True, False, True, True, True]
    (tier,) = await cache.tiers()
    assert (tier.bytes, tier.evictions, tier.limit_bytes) == (400, 1, 400)


async def test_in_memory_too_large_a_value_is_not_kept_and_displaces_nothing(clock: FakeClock) -> None:
    cache = MemoryCache(400, clock=clock)
    await cache.set("a", bytes(100), 10)
    await cache.set("b", bytes(101), 10)
    assert await cache.get("b") is None
    assert await cache.get("a") is not None


async def test_in_memory_many_small_values_are_bounded_too(clock: FakeClock) -> None:
    cache = MemoryCache(LEAST_BYTES * 10, clock=clock)
    for n in range(100):
        await cache.set(str(n), b"", 10)
    (tier,) = await cache.tiers()
    assert (tier.entries, tier.evictions) == (10, 90)
