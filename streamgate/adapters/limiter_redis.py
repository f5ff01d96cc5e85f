"""Rate limits of all processes together, in Redis."""

from __future__ import annotations

from streamgate.adapters.redis_link import RedisLink
from streamgate.domain.clock import Clock
from streamgate.domain.errors import Unavailable
from streamgate.ports.limiter import Limiter, Rate, Verdict

KEYS = "sg:l:"

TAKE = """
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local step = 1 / tonumber(ARGV[1])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local early = due + step - now - tonumber(ARGV[2]) * step
if early > step * 1e-9 then
  return {0, string.format('%.17g', due - now), string.format('%.17g', early)}
end
due = due + step
redis.call('SET', KEYS[1], string.format('%.17g', due), 'PX', math.ceil((due - now) * 1000) + 1000)
return {1, string.format('%.17g', due - now), '0'}
"""
"""The same arithmetic as `MemoryLimiter`, in the same order, as one step of the server."""


class RedisLimiter(Limiter):
    """While Redis is away ``instead`` counts, so a limit then holds for each process by itself.

    ``clock``: whose time counts; default Redis's own, so that clocks of machines need not agree.
    """

    def __init__(self, link: RedisLink, instead: Limiter, clock: Clock | None = None) -> None:
        self._link = link
        self._instead = instead
        self._clock = clock
        self._take = link.script(TAKE)

    async def take(self, key: str, rate: Rate) -> Verdict:
        now = "" if self._clock is None else repr(self._clock.monotonic())
        args = (repr(rate.per_s), rate.burst, now)
        try:
            allowed, left, early = await self._link.run(
                lambda redis: self._take(keys=(KEYS + key,), args=args, client=redis)
            )
        except Unavailable:
            return await self._instead.take(key, rate)
        if not allowed:
            return Verdict(False, 0, float(left), float(early))
        return Verdict(True, int(rate.burst - float(left) * rate.per_s + 1e-9), float(left), 0.0)
