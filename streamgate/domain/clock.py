"""The clock, as a value that tests replace. Wall time is integer milliseconds since the Unix epoch, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the product asks of time."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def instant(ms: int) -> datetime:
    """``ms`` since the epoch as an aware UTC datetime (RFC 3339 when serialised)."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def milliseconds(moment: datetime) -> int:
    """The inverse of `instant`; a naive datetime is refused with `ValueError`."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return round(moment.timestamp() * 1000)
