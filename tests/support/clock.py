"""A clock that moves when it is told to."""

from __future__ import annotations


class FakeClock:
    """Starts at a round moment of 2026."""

    def __init__(self, now_ms: int = 1_780_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._now_ms / 1000

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now_ms += round(seconds * 1000)
