"""The circuit breaker and the budget of retries, against a clock that is moved by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.domain.errors import Unavailable
from streamgate.runtime.breaker import Breaker, RetryBudget
from tests.support.clock import FakeClock


def opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(10):
        breaker.check()
        breaker.failed()
    assert breaker.state == "open"
    return breaker


def lets_through(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except Unavailable:
        return False
    return True


def test_few_failures_do_not_open_it() -> None:
    breaker = Breaker(FakeClock())
    for _ in range(9):
        breaker.check()
        breaker.failed()
    assert breaker.state == "closed"


def test_it_opens_at_the_ratio_and_not_below() -> None:
    breaker = Breaker(FakeClock())
    for _ in range(11):
        breaker.succeeded()
    for _ in range(10):
        breaker.failed()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "open"


def test_what_is_older_than_the_window_does_not_count() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    for _ in range(9):
        breaker.failed()
    clock.advance(10.5)
    breaker.failed()
    assert breaker.state == "closed"


def test_open_it_says_when_to_come_again() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(2)
    with pytest.raises(Unavailable) as refused:
        breaker.check()
    assert refused.value.retry_after == pytest.approx(3.0)


def test_one_probe_at_a_time_and_its_success_closes_it() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    assert breaker.state == "half-open"
    assert lets_through(breaker)
    assert not lets_through(breaker)
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.state == "closed"
    assert lets_through(breaker)


def test_a_failed_probe_opens_it_anew() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    breaker.check()
    breaker.failed()
    assert breaker.state == "open"
    clock.advance(4.9)
    assert not lets_through(breaker)
    clock.advance(0.2)
    assert lets_through(breaker)


def test_a_probe_without_a_verdict_makes_room_for_the_next() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(5)
    breaker.check()
    breaker.abandoned()
    assert lets_through(breaker)
    assert not lets_through(breaker)
    clock.advance(5)
    assert lets_through(breaker), "a probe that never ended is given up"


def test_late_verdicts_leave_an_open_breaker_open() -> None:
    breaker = opened(FakeClock())
    breaker.succeeded()
    breaker.failed()
    breaker.abandoned()
    assert breaker.state == "open"
    assert not lets_through(breaker)


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "lost"]), st.floats(0, 3)), max_size=200))
def test_while_nothing_answers_calls_are_few_and_one_that_answers_is_found_again(
    steps: list[tuple[str, float]],
) -> None:
    """Whatever happened: at most one call in each open time gets through to what is away, and recovery takes one probe."""
    clock = FakeClock()
    breaker = Breaker(clock)
    for outcome, wait in steps:
        clock.advance(wait)
        if lets_through(breaker):
            {"ok": breaker.succeeded, "fail": breaker.failed, "lost": breaker.abandoned}[outcome]()
    for _ in range(200):
        if lets_through(breaker):
            breaker.failed()
    assert breaker.state == "open"
    through = []
    for _ in range(300):
        clock.advance(0.1)
        if lets_through(breaker):
            through.append(clock.monotonic())
            breaker.failed()
    assert len(through) <= 6
    assert all(later - earlier > 4.99 for earlier, later in pairwise(through))
    clock.advance(5)
    assert lets_through(breaker)
    breaker.succeeded()
    assert breaker.state == "closed"


@given(st.lists(st.booleans(), max_size=500))
def test_retries_are_a_tenth_of_the_calls_and_a_bounded_reserve(asks: list[bool]) -> None:
    budget = RetryBudget()
    calls = retries = 0
    for retry in asks:
        if retry:
            retries += budget.spend()
        else:
            budget.called()
            calls += 1
        assert retries <= 10 + 0.1 * calls + 1e-6


def test_a_long_quiet_time_does_not_save_up_retries() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.called()
    assert sum(budget.spend() for _ in range(100)) == 10
