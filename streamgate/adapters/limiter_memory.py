"""Rate limits of one process, in memory."""

from __future__ import annotations

from collections import OrderedDict

from streamgate.domain.clock import Clock
from streamgate.ports.limiter import Limiter, Rate, Verdict

MOST_KEYS = 100_000


class MemoryLimiter(Limiter):
    """Keeps the most recent 100,000 keys: under a flood of new ones the longest unused are forgotten, that is, full again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()

    async def take(self, key: str, rate: Rate) -> Verdict:
        now = self._clock.monotonic()
        step = 1 / rate.per_s
        due = max(self._due.get(key, now), now)
        early = due + step - now - rate.burst * step
        if early > step * 1e-9:
            return Verdict(False, 0, due - now, early)
        self._due[key] = due + step
        self._due.move_to_end(key)
        if len(self._due) > MOST_KEYS:
            self._due.popitem(last=False)
        left = due + step - now
        return Verdict(True, int(rate.burst - left / step + 1e-9), left, 0.0)
