"""What every limiter keeps to: the generic cell rate algorithm, key by key."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.adapters.limiter_memory import MemoryLimiter
from streamgate.ports.limiter import Rate
from tests.support.clock import FakeClock

RATE = Rate(per_s=2.0, burst=5)


async def test_a_burst_then_a_trickle() -> None:
    clock = FakeClock()
    limiter = MemoryLimiter(clock)
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


async def test_a_refusal_costs_nothing() -> None:
    clock = FakeClock()
    limiter = MemoryLimiter(clock)
    for _ in range(5):
        await limiter.take("a", RATE)
    for _ in range(50):
        assert not (await limiter.take("a", RATE)).allowed
    clock.advance(0.5)
    assert (await limiter.take("a", RATE)).allowed


async def test_at_once_means_at_once() -> None:
    limiter = MemoryLimiter(FakeClock())
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
