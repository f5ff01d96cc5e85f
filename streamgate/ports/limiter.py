"""Limiter: how often something may happen, for every process that asks with the same key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``burst`` (at least 1) at once, and ``per_s`` (above 0) in a second for ever after."""

    per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """Seconds until a bucket that was used up is full again."""
        return self.burst / self.per_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """``remaining``: how many more would be allowed now. ``reset_s``: seconds until everything is.

    ``retry_after_s``: seconds until one is allowed; 0 when this one was.
    """

    allowed: bool
    remaining: int
    reset_s: float
    retry_after_s: float


class Limiter(ABC):
    """Counts by the generic cell rate algorithm (ITU-T I.371): one moment per key, no windows, no background work."""

    @abstractmethod
    async def take(self, key: str, rate: Rate) -> Verdict:
        """Count one, if it is allowed; a refused one costs nothing. Atomic for all that use the same key.

        `Unavailable` when the counts cannot be reached; whether to go on then is the caller's decision.
        """
