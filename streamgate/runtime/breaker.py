"""Calls to something that may be away: a circuit breaker, and a budget for retries. Neither waits nor starts anything.

Use one of each for every service and method that is called::

    breaker.check()
    try:
        answer = await call()
    except Unavailable:
        breaker.failed()
        raise
    except BaseException:
        breaker.abandoned()  # cancelled, or an error that says nothing about whether the other side is there
        raise
    breaker.succeeded()
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from streamgate.domain.clock import Clock
from streamgate.domain.errors import Unavailable

State = Literal["closed", "open", "half-open"]

SLICES = 10
"""The window slides by this part of itself."""


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    failures: int = 0


class Breaker:
    """Opens when of at least ``minimum`` calls in ``window_s`` seconds the part ``ratio`` failed.

    Open, it refuses every call for ``open_s`` seconds. Then one caller is let through as the probe while the others are still
    refused: its success closes the breaker with a clean record, its failure opens it anew. A probe that never tells its end is
    given up after ``open_s``. Verdicts of calls from before the opening are not counted while it is open.
    """

    def __init__(
        self, clock: Clock, *, ratio: float = 0.5, minimum: int = 10, window_s: float = 10.0, open_s: float = 5.0
    ) -> None:
        self._clock = clock
        self._ratio = ratio
        self._minimum = minimum
        self._slice_s = window_s / SLICES
        self._open_s = open_s
        self._slices: deque[_Slice] = deque()
        self._open_until: float | None = None
        self._probe_until: float | None = None

    @property
    def state(self) -> State:
        """``half-open`` from the moment a probe may go until its verdict."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock.monotonic() < self._open_until else "half-open"

    def check(self) -> None:
        """Return when the call may be made; its end is told by one of the methods below. `Unavailable` when it may not."""
        if self._open_until is None:
            return
        now = self._clock.monotonic()
        until = self._open_until if now < self._open_until else self._probe_until
        if until is not None and now < until:
            raise Unavailable("The service failed too often lately and is given time.", retry_after=until - now)
        self._probe_until = now + self._open_s

    def succeeded(self) -> None:
        """The other side answered, be it with an error of the caller's."""
        match self.state:
            case "closed":
                self._current().calls += 1
            case "half-open":
                self._open_until = self._probe_until = None
                self._slices.clear()

    def failed(self) -> None:
        """The other side did not answer, or not in time."""
        match self.state:
            case "closed":
                current = self._current()
                current.calls += 1
                current.failures += 1
                calls = sum(s.calls for s in self._slices)
                if calls >= self._minimum and sum(s.failures for s in self._slices) >= self._ratio * calls:
                    self._open()
            case "half-open":
                self._open()

    def abandoned(self) -> None:
        """The call ended without a verdict; if it was the probe, the next caller is."""
        self._probe_until = None

    def _open(self) -> None:
        self._open_until = self._clock.monotonic() + self._open_s
        self._probe_until = None
        self._slices.clear()

    def _current(self) -> _Slice:
        number = int(self._clock.monotonic() / self._slice_s)
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]


class RetryBudget:
    """Keeps retries a small part of all calls: every call puts ``deposit`` in, a retry takes 1, at most ``most`` is kept.

    It starts full, so that a process that has just begun may retry too.
    """

    def __init__(self, *, deposit: float = 0.1, most: float = 10.0) -> None:
        self._deposit = deposit
        self._most = most
        self._tokens = most

    def called(self) -> None:
        """A call was made that is no retry."""
        self._tokens = min(self._most, self._tokens + self._deposit)

    def spend(self) -> bool:
        """Whether a retry may be made now; then it is paid for."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
