"""The cache of all processes in Redis, under the cache of this process.

A purge or a deletion in any process takes values out of Redis at once; out of the memory of other processes it takes them when
these are told (the signal ``Purge``), at the latest after `AGE_S`. What is loaded meanwhile is kept out by fences: numbers
that a purge raises and that a load must find unchanged to be stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from streamgate.adapters.cache_memory import MemoryCache
from streamgate.adapters.redis_link import RedisLink
from streamgate.domain.clock import Clock
from streamgate.domain.errors import Unavailable
from streamgate.ports.cache import Cache, Tier

AGE_S = 60.0
"""A value is in memory for at most so long before Redis is asked again."""

ENTRY, TAG, FENCE = "sg:c:", "sg:t:", "sg:f:"
FENCE_MS = 600_000
"""Longer than any load."""

MOST_OWED = 1000

SET = """
local tags = tonumber(ARGV[4])
for i = 2 + tags, #KEYS do
  if (redis.call('GET', KEYS[i]) or '') ~= ARGV[3 + i - tags] then return 0 end
end
for tag in string.gmatch(redis.call('HGET', KEYS[1], 't') or '', '[^\\n]+') do redis.call('SREM', 'sg:t:' .. tag, KEYS[1]) end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'u', ARGV[2], 't', ARGV[5 + #KEYS - 1 - tags])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 2, 1 + tags do
  redis.call('SADD', KEYS[i], KEYS[1])
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
return 1
"""
"""KEYS: the entry, its tags, its fences. ARGV: value, end (ms since 1970), ms to live, how many tags, fences, names of tags."""

DELETE = """
for tag in string.gmatch(redis.call('HGET', KEYS[1], 't') or '', '[^\\n]+') do redis.call('SREM', 'sg:t:' .. tag, KEYS[1]) end
redis.call('UNLINK', KEYS[1])
redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
"""
"""KEYS: the entry, its fence."""

PURGE = """
local dropped = 0
for i = 1, #KEYS, 2 do
  redis.call('INCR', KEYS[i + 1])
  redis.call('PEXPIRE', KEYS[i + 1], ARGV[1])
  for _, entry in ipairs(redis.call('SMEMBERS', KEYS[i])) do dropped = dropped + redis.call('UNLINK', entry) end
  redis.call('UNLINK', KEYS[i])
end
return dropped
"""
"""KEYS: a tag and its fence, again and again."""


@dataclass(slots=True)
class _Owed:
    """What could not be thrown away because Redis was away; it is, before anything else is asked of it."""

    everything: bool = False
    keys: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return self.everything or bool(self.keys) or bool(self.tags)

    def note(self, *, keys: Sequence[str] = (), tags: Sequence[str] = (), everything: bool = False) -> None:
        """Remember; too much to remember is everything."""
        self.keys.update(keys)
        self.tags.update(tags)
        self.everything = self.everything or everything or len(self.keys) + len(self.tags) > MOST_OWED
        if self.everything:
            self.keys.clear()
            self.tags.clear()


class RedisCache(Cache):
    """``memory``: the tier in front, which also joins loads of one key. While Redis is away there is only that tier.

    A tag holds no line feed. The Redis is taken to be one server that starts empty, that is, without persistence.
    """

    def __init__(self, link: RedisLink, memory: MemoryCache, *, clock: Clock, largest: int = 8 << 20) -> None:
        self._link = link
        self._memory = memory
        self._clock = clock
        self._largest = largest
        self._set, self._delete, self._purge = link.script(SET), link.script(DELETE), link.script(PURGE)
        self._owed = _Owed()
        self._paying = asyncio.Lock()
        self._changes = 0
        self._hits = 0
        self._misses = 0

    def peek(self, key: str) -> bytes | None:
        return self._memory.peek(key)

    def keep(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        self._memory.keep(key, value, min(ttl_s, AGE_S), tags)

    async def get(self, key: str) -> bytes | None:
        found = await self._memory.get(key)
        if found is not None:
            return found
        changes = self._changes
        try:
            value, left, tags = await self._fetch(key)
        except Unavailable:
            return None
        if value is not None and changes == self._changes:
            await self._memory.set(key, value, min(left, AGE_S), tags)
        return value

    async def set(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        await self.delete(key)
        if ttl_s > 0:
            await self._memory.set(key, value, min(ttl_s, AGE_S), tags)
            await self._store(key, value, ttl_s, tags, None)

    async def delete(self, key: str) -> None:
        self._changes += 1
        await self._memory.delete(key)
        try:
            await self._run(
                lambda redis: self._delete(keys=(ENTRY + key, f"{FENCE}k:{key}"), args=(FENCE_MS,), client=redis)
            )
        except Unavailable:
            self._owed.note(keys=(key,))

    async def purge(self, tags: tuple[str, ...]) -> int:
        self._changes += 1
        here = await self._memory.purge(tags)
        try:
            there: int = await self._run(lambda redis: self._drop(redis, tags))
        except Unavailable:
            self._owed.note(tags=tags, everything=not tags)
            return here
        return max(here, there)

    async def get_or_load(
        self, key: str, ttl_s: float, load: Callable[[], Awaitable[bytes]], tags: tuple[str, ...] = ()
    ) -> bytes:
        async def through() -> tuple[bytes, float]:
            fences: list[str] | None = None
            try:
                fences = await self._fences(key, tags)
                value, left, _ = await self._fetch(key)
                if value is not None:
                    return value, min(left, AGE_S)
            except Unavailable:
                pass
            value = await load()
            if fences is not None and ttl_s > 0:
                await self._store(key, value, ttl_s, tags, fences)
            return value, min(ttl_s, AGE_S)

        return await self._memory.get_or_load_until(key, through, tags)

    async def tiers(self) -> tuple[Tier, ...]:
        """Entries, bytes, limit and evictions of the second tier are the server's own (DBSIZE, INFO)."""
        entries = used = limit = evicted = 0
        try:
            entries, info = await self._run(lambda redis: asyncio.gather(redis.dbsize(), redis.info()))
            used, limit, evicted = info["used_memory"], info["maxmemory"], info["evicted_keys"]
        except Unavailable:
            pass
        return (
            *await self._memory.tiers(),
            Tier("redis", entries, used, limit, hits=self._hits, misses=self._misses, evictions=evicted),
        )

    async def _run(self, operation: Callable[[Redis], Awaitable[Any]]) -> Any:
        if self._owed or self._paying.locked():
            async with self._paying:
                if self._owed:
                    await self._pay()
        return await self._link.run(operation)

    async def _pay(self) -> None:
        owed, self._owed = self._owed, _Owed()

        async def pay(redis: Redis) -> None:
            if owed.everything:
                await self._drop(redis, ())
            if owed.tags:
                await self._drop(redis, tuple(owed.tags))
            for key in owed.keys:
                await self._delete(keys=(ENTRY + key, f"{FENCE}k:{key}"), args=(FENCE_MS,), client=redis)

        try:
            await self._link.run(pay)
        except BaseException:
            self._owed.note(keys=tuple(owed.keys), tags=tuple(owed.tags), everything=owed.everything)
            raise

    async def _drop(self, redis: Redis, tags: tuple[str, ...]) -> int:
        if tags:
            names = [name for tag in tags for name in (TAG + tag, f"{FENCE}t:{tag}")]
            return int(await self._purge(keys=names, args=(FENCE_MS,), client=redis))
        await redis.incr(f"{FENCE}all")
        dropped = 0
        for prefix in (ENTRY, TAG):
            async for name in redis.scan_iter(match=f"{prefix}*", count=1000):
                gone = await redis.unlink(name)
                dropped += gone if prefix == ENTRY else 0
        return dropped

    async def _fences(self, key: str, tags: tuple[str, ...]) -> list[str]:
        found = await self._run(lambda redis: redis.mget(_fence_names(key, tags)))
        return [(value or b"").decode() for value in found]

    async def _fetch(self, key: str) -> tuple[bytes | None, float, tuple[str, ...]]:
        value, until, tags = await self._run(lambda redis: redis.hmget(ENTRY + key, ["v", "u", "t"]))
        left = (int(until) - self._clock.now_ms()) / 1000 if value is not None else 0.0
        if left <= 0:
            self._misses += 1
            return None, 0.0, ()
        self._hits += 1
        return value, left, tuple(tags.decode().splitlines())

    async def _store(
        self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...], fences: list[str] | None
    ) -> None:
        if len(value) > self._largest:
            return
        ttl_ms = max(1, int(ttl_s * 1000))
        names = [ENTRY + key, *(TAG + tag for tag in tags), *(_fence_names(key, tags) if fences is not None else ())]
        args = [value, self._clock.now_ms() + ttl_ms, ttl_ms, len(tags), *(fences or ()), "\n".join(tags)]
        try:
            await self._run(lambda redis: self._set(keys=names, args=args, client=redis))
        except Unavailable:
            self._owed.note(keys=(key,))


def _fence_names(key: str, tags: tuple[str, ...]) -> list[str]:
    return [f"{FENCE}all", f"{FENCE}k:{key}", *(f"{FENCE}t:{tag}" for tag in tags)]
