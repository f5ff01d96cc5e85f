"""What the cache in Redis promises beyond every cache: between processes, and while Redis is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from streamgate.adapters.cache_memory import MemoryCache
from streamgate.adapters.cache_redis import RedisCache
from streamgate.adapters.redis_link import PAUSE_S, RedisLink
from streamgate.domain.clock import Clock, SystemClock
from streamgate.domain.errors import ConfigurationError, Unavailable
from streamgate.ports.cache import Cache
from tests.support.clock import FakeClock
from tests.support.proxy import proxy
from tests.support.redis import RedisServer


@asynccontextmanager
async def process(server: RedisServer, clock: Clock, port: int | None = None) -> AsyncIterator[Cache]:
    """The cache as one more process has it."""
    async with RedisLink(f"redis://127.0.0.1:{port or server.port}/0", clock) as link:
        yield RedisCache(link, MemoryCache(1 << 20, clock=clock), clock=clock)


async def never() -> bytes:
    raise AssertionError("it is in the cache")


async def until_shared(one: Cache, other: Cache) -> None:
    """Until what one sets the other has."""
    async with asyncio.timeout(20):
        n = 0
        while True:
            n += 1
            await one.set(f"again{n}", b"x", 60)
            if await other.get(f"again{n}") is not None:
                return
            await asyncio.sleep(0.1)


async def test_what_one_loads_the_others_have(redis_empty: RedisServer, clock: FakeClock) -> None:
    async def load() -> bytes:
        return b"value"

    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        assert await one.get_or_load("k", 100, load, ("t",)) == b"value"
        assert two.peek("k") is None
        assert await two.get_or_load("k", 100, never) == b"value"
        assert two.peek("k") == b"value"


async def test_in_memory_nothing_gets_older_than_a_minute(redis_empty: RedisServer, clock: FakeClock) -> None:
    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        await one.set("k", b"old", 1000)
        assert await two.get("k") == b"old"
        await one.set("k", b"new", 1000)
        clock.advance(61)
        assert await two.get("k") == b"new"


async def test_in_memory_nothing_outlives_its_time(redis_empty: RedisServer, clock: FakeClock) -> None:
    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        await one.set("k", b"1", 30)
        await one.set("l", b"1", 30)
        clock.advance(20)
        assert await two.get("k") == b"1"
        assert await two.get_or_load("l", 30, never) == b"1"
        clock.advance(11)
        assert (two.peek("k"), two.peek("l")) == (None, None)


async def test_a_purge_by_one_reaches_the_other_with_its_next_purge_or_load(
    redis_empty: RedisServer, clock: FakeClock
) -> None:
    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        await one.set("a", b"1", 100, ("t",))
        await one.set("b", b"1", 100, ("u",))
        assert await two.purge(("t",)) == 1
        assert await two.get("a") is None
        assert await two.get("b") == b"1"
        assert await one.purge(("t",)) == 1, "as the signal does it; its memory still had the value"
        assert await one.get("a") is None
        assert await two.purge(()) == 1
        assert await two.get("b") is None


async def test_a_tag_that_came_from_redis_is_purged_in_memory_too(redis_empty: RedisServer, clock: FakeClock) -> None:
    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        await one.set("a", b"1", 100, ("t",))
        assert await two.get("a") == b"1"
        await two.purge(("t",))
        assert two.peek("a") is None


@pytest.mark.parametrize("how", ["purge", "purge everything", "delete", "set"])
async def test_a_load_that_another_process_overtook_is_not_shared(
    redis_empty: RedisServer, clock: FakeClock, how: str
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def load() -> bytes:
        begun.set()
        await go.wait()
        return b"old"

    async with (
        process(redis_empty, clock) as one,
        process(redis_empty, clock) as two,
        process(redis_empty, clock) as new,
    ):
        loading = asyncio.create_task(one.get_or_load("k", 100, load, ("t",)))
        await begun.wait()
        match how:
            case "purge":
                await two.purge(("t",))
            case "delete":
                await two.delete("k")
            case "set":
                await two.set("k", b"new", 100)
            case _:
                await two.purge(())
        go.set()
        assert await loading == b"old"
        assert await new.get("k") == (b"new" if how == "set" else None)


async def test_away_it_is_an_empty_cache_with_memory_and_what_was_purged_stays_purged(redis_empty: RedisServer) -> None:
    clock = SystemClock()
    with proxy(redis_empty.port) as line:
        async with process(redis_empty, clock, line.port) as one, process(redis_empty, clock) as two:
            await one.set("purged", b"1", 100, ("t",))
            await one.set("deleted", b"1", 100)
            await one.set("replaced", b"1", 100)
            line.cut()
            assert await one.get("nothing") is None
            await one.set("own", b"1", 100)
            assert await one.get("own") == b"1"
            assert await one.purge(("t",)) == 1
            await one.delete("deleted")
            await one.set("replaced", b"2", 100)
            line.mend()
            await asyncio.sleep(PAUSE_S)
            await until_shared(one, two)
            assert [await two.get(key) for key in ("purged", "deleted")] == [None, None]
            assert await two.get("replaced") != b"1"


async def test_a_link_that_goes_dead_holds_nobody_up_for_long(redis_empty: RedisServer) -> None:
    clock = SystemClock()
    with proxy(redis_empty.port) as line:
        async with process(redis_empty, clock, line.port) as cache:
            await cache.set("k", b"1", 100)
            line.stall()
            began = time.monotonic()
            for n in range(50):
                assert await cache.get(f"other{n}") is None
            assert time.monotonic() - began < 10
            line.mend()


async def test_answers_are_never_mixed_up_after_callers_gave_up(redis_empty: RedisServer) -> None:
    """A client that reuses the connection of a cancelled command reads the answer to another one."""
    clock = SystemClock()
    with proxy(redis_empty.port) as line:
        async with process(redis_empty, clock) as whole, process(redis_empty, clock, line.port) as cache:
            for n in range(40):
                await whole.set(str(n), b"%d" % n, 100)
            await cache.get("warm")
            line.delay_s = 0.02
            asked = [asyncio.create_task(cache.get(str(n))) for n in range(40)]
            await asyncio.sleep(0.05)
            for task in asked[::2]:
                task.cancel()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            line.mend()
            answers += await asyncio.gather(*(cache.get(str(n)) for n in range(40)))
    for n, answer in enumerate(answers):
        assert answer in {b"%d" % (n % 40), None} or isinstance(answer, asyncio.CancelledError)
    assert None not in answers[40:]


async def test_more_callers_than_connections_wait(redis_empty: RedisServer) -> None:
    async with process(redis_empty, SystemClock()) as cache, process(redis_empty, SystemClock()) as other:
        await asyncio.gather(*(cache.set(str(n), b"1", 100) for n in range(300)))
        assert await asyncio.gather(*(other.get(str(n)) for n in range(300))) == [b"1"] * 300


async def test_it_survives_a_restart_of_the_server(redis_empty: RedisServer) -> None:
    clock = SystemClock()
    async with process(redis_empty, clock) as one, process(redis_empty, clock) as two:
        await one.set("k", b"1", 100)
        redis_empty.kill()
        try:
            assert await one.get("k") == b"1"
            assert await two.get("k") is None
        finally:
            redis_empty.start()
        await until_shared(one, two)


async def test_statistics_name_both_tiers(redis_empty: RedisServer, clock: FakeClock) -> None:
    async with process(redis_empty, clock) as cache:
        await cache.set("a", b"1", 100)
        await cache.get("b")
        memory, redis = await cache.tiers()
    assert (memory.name, memory.entries) == ("memory", 1)
    assert (redis.name, redis.misses) == ("redis", 1)
    assert redis.entries >= 1
    assert redis.bytes > 0


def test_an_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"cache\.url is no address"):
        RedisLink("http://127.0.0.1", SystemClock())


def test_a_connection_that_uvloop_found_closed_is_a_connection_that_is_lost(redis_empty: RedisServer) -> None:
    async def main() -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", redis_empty.port)
        writer.transport.abort()
        while not await asyncio.to_thread(lambda: "closed=True" in repr(writer.transport)):
            await asyncio.sleep(0.01)

        async def on_a_closed_transport(_client: object) -> None:
            writer.writelines([b"PING\r\n"])

        async def fail(_client: object) -> None:
            raise RuntimeError("something else")

        async with RedisLink(f"redis://127.0.0.1:{redis_empty.port}/0", SystemClock()) as link:
            with pytest.raises(RuntimeError, match="something else"):
                await link.run(fail)
            with pytest.raises(Unavailable):
                await link.run(on_a_closed_transport)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
