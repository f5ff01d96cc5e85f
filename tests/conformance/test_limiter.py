"""What every limiter keeps to: the generic cell rate algorithm, key by key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.adapters.limiter_memory import MemoryLimiter
from streamgate.adapters.limiter_redis import RedisLimiter
from streamgate.adapters.redis_link import PAUSE_S, RedisLink
from streamgate.domain.clock import SystemClock
from streamgate.ports.limiter import Limiter, Rate, Verdict
from tests.support.clock import FakeClock
from tests.support.proxy import proxy
from tests.support.redis import RedisServer

RATE = Rate(per_s=2.0, burst=5)


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Limiter]:
    if request.param == "memory":
        yield MemoryLimiter(clock)
        return
    server: RedisServer = request.getfixturevalue("redis_empty")
    async with RedisLink(server.url, clock) as link:
        yield RedisLimiter(link, Broken(), clock)


class Broken(Limiter):
    """Must not be asked."""

    async def take(self, key: str, rate: Rate) -> Verdict:
        raise AssertionError("the counts were there")


async def test_a_burst_then_a_trickle(limiter: Limiter, clock: FakeClock) -> None:
    verdicts = [await limiter.take("a", RATE) for _ in range(5)]
    assert [(v.allowed, v.remaining) for v in verdicts] == [(True, n) for n in (4, 3, 2, 1, 0)]
    assert verdicts[-1].reset_s == pytest.approx(2.5)
    refused = await limiter.take("a", RATE)
    assert (refused.allowed, refused.remaining, refused.retry_after_s) == (False, 0, pytest.approx(0.5))
    assert (await limiter.take("b", RATE)).allowed
    clock.advance(0.5)
    assert (await limiter.take("a", RATE)).allowed
    assert not (await limiter.take("a", RATE)).allowed
    clock.advance(100)
    assert (await limiter.take("a", RATE)).remaining == 4


async def test_a_refusal_costs_nothing(limiter: Limiter, clock: FakeClock) -> None:
    for _ in range(5):
        await limiter.take("a", RATE)
    for _ in range(50):
        assert not (await limiter.take("a", RATE)).allowed
    clock.advance(0.5)
    assert (await limiter.take("a", RATE)).allowed


async def test_at_once_means_at_once(limiter: Limiter) -> None:
    verdicts = await asyncio.gather(*(limiter.take("a", RATE) for _ in range(100)))
    assert sum(v.allowed for v in verdicts) == 5


@given(
    per_s=st.sampled_from([0.1, 0.5, 1.0, 3.0, 100.0]),
    burst=st.integers(1, 20),
    waits=st.lists(st.floats(0, 5), max_size=60),
)
def test_no_more_than_the_rate_in_any_stretch_of_time(per_s: float, burst: int, waits: list[float]) -> None:
    """Of any stretch of t seconds at most burst + t * rate are allowed, and whoever waits as told is allowed."""

    async def go() -> None:
        clock = FakeClock()
        limiter = MemoryLimiter(clock)
        allowed: list[float] = []
        for wait in waits:
            clock.advance(wait)
            verdict = await limiter.take("a", Rate(per_s, burst))
            if verdict.allowed:
                allowed.append(clock.monotonic())
            else:
                clock.advance(verdict.retry_after_s + 0.001)
                assert (await limiter.take("a", Rate(per_s, burst))).allowed
                allowed.append(clock.monotonic())
        for first in range(len(allowed)):
            for last in range(first, len(allowed)):
                assert last - first + 1 <= burst + (allowed[last] - allowed[first]) * per_s + 1e-6

    asyncio.run(go())


RATES = [Rate(0.1, 1), Rate(0.5, 3), Rate(1.0, 20), Rate(3.0, 2), Rate(100.0, 7)]


async def test_in_redis_the_same_is_counted_as_in_memory(redis_empty: RedisServer, clock: FakeClock) -> None:
    """Verdict by verdict, for a thousand moments and keys drawn at random."""
    drawn = random.Random(7)
    memory = MemoryLimiter(clock)
    async with RedisLink(redis_empty.url, clock) as link:
        shared = RedisLimiter(link, Broken(), clock)
        for _ in range(1000):
            clock.advance(drawn.choice([0, 0, 0.003, 0.2, 1.7]))
            number = drawn.randrange(len(RATES))
            assert await shared.take(str(number), RATES[number]) == await memory.take(str(number), RATES[number])


async def test_two_processes_count_together(redis_empty: RedisServer) -> None:
    """By Redis's own time: whatever their clocks say."""
    async with RedisLink(redis_empty.url, FakeClock()) as one, RedisLink(redis_empty.url, FakeClock(5)) as two:
        limiters = [RedisLimiter(link, Broken()) for link in (one, two)]
        slow = Rate(per_s=0.01, burst=5)
        verdicts = await asyncio.gather(*(limiters[n % 2].take("a", slow) for n in range(60)))
    assert sum(verdict.allowed for verdict in verdicts) == 5
    refused = next(verdict for verdict in verdicts if not verdict.allowed)
    assert 90 < refused.retry_after_s <= 100


async def test_while_redis_is_away_each_process_counts_by_itself(redis_empty: RedisServer) -> None:
    clock = SystemClock()
    slow = Rate(per_s=0.01, burst=2)
    with proxy(redis_empty.port) as line:
        async with RedisLink(f"redis://127.0.0.1:{line.port}", clock) as link:
            limiter = RedisLimiter(link, MemoryLimiter(clock))
            assert (await limiter.take("a", slow)).allowed
            line.cut()
            assert [(await limiter.take("a", slow)).allowed for _ in range(3)] == [True, True, False]
            line.mend()
            async with asyncio.timeout(20):
                while not await link.healthy():
                    await asyncio.sleep(0.05)
            await asyncio.sleep(PAUSE_S)
            assert [(await limiter.take("a", slow)).allowed for _ in range(2)] == [True, False]
