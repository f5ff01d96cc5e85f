"""The cache of one process: least recently used first out, bounded by the bytes of its values."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass

from streamgate.domain.clock import Clock
from streamgate.ports.cache import Cache, Tier

LEAST_BYTES = 64
"""A cache of n bytes keeps at most n / LEAST_BYTES entries, however small their values are."""


@dataclass(slots=True)
class _Entry:
    value: bytes
    until: float
    tags: tuple[str, ...]


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[bytes]
    tags: tuple[str, ...]
    stale: bool = False
    waiting: int = 0


class MemoryCache(Cache):
    """``limit_bytes`` bounds the values; a value larger than a quarter of it is not kept."""

    def __init__(self, limit_bytes: int, *, clock: Clock, name: str = "memory") -> None:
        self._limit = limit_bytes
        self._clock = clock
        self._name = name
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loads: dict[str, _Load] = {}
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def peek(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None or entry.until <= self._clock.monotonic():
            return None
        self._entries.move_to_end(key)
        self._hits += 1
        return entry.value

    async def get(self, key: str) -> bytes | None:
        found = self.peek(key)
        if found is not None:
            return found
        entry = self._entries.get(key)
        if entry is not None:
            self._drop(key)
        self._misses += 1
        return None

    async def set(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        await self.delete(key)
        self._put(key, value, ttl_s, tags)

    def keep(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        self._misses += 1
        self._drop(key)
        self._put(key, value, ttl_s, tags)

    def _put(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...]) -> None:
        if len(value) > self._limit // 4 or ttl_s <= 0:
            return
        self._entries[key] = _Entry(value, self._clock.monotonic() + ttl_s, tags)
        self._bytes += len(value)
        while self._bytes > self._limit or len(self._entries) > self._limit // LEAST_BYTES:
            self._drop(next(iter(self._entries)))
            self._evictions += 1

    async def delete(self, key: str) -> None:
        self._drop(key)
        load = self._loads.get(key)
        if load is not None:
            load.stale = True

    async def purge(self, tags: tuple[str, ...]) -> int:
        wanted = set(tags)
        hit = [key for key, entry in self._entries.items() if not tags or wanted.intersection(entry.tags)]
        for key in hit:
            self._drop(key)
        for load in self._loads.values():
            if not tags or wanted.intersection(load.tags):
                load.stale = True
        return len(hit)

    async def get_or_load(
        self, key: str, ttl_s: float, load: Callable[[], Awaitable[bytes]], tags: tuple[str, ...] = ()
    ) -> bytes:
        async def for_long() -> tuple[bytes, float]:
            return await load(), ttl_s

        return await self.get_or_load_until(key, for_long, tags)

    async def get_or_load_until(
        self, key: str, load: Callable[[], Awaitable[tuple[bytes, float]]], tags: tuple[str, ...] = ()
    ) -> bytes:
        """As `get_or_load`, where the load says for how many seconds its value may be kept."""
        found = await self.get(key)
        if found is not None:
            return found
        running = self._loads.get(key)
        if running is None or running.stale:
            running = self._begin(key, load, tags)
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.waiting -= 1
            if not running.waiting and not running.task.done():
                running.stale = True  # whoever comes now does not join what ends
                running.task.cancel()

    async def tiers(self) -> tuple[Tier, ...]:
        return (
            Tier(
                name=self._name,
                entries=len(self._entries),
                bytes=self._bytes,
                limit_bytes=self._limit,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            ),
        )

    def _begin(self, key: str, load: Callable[[], Awaitable[tuple[bytes, float]]], tags: tuple[str, ...]) -> _Load:
        async def run() -> bytes:
            try:
                value, ttl_s = await load()
                if not mine.stale:
                    await self.set(key, value, ttl_s, tags)
                return value
            finally:
                if self._loads.get(key) is mine:
                    del self._loads[key]

        # an empty context: the load is for all who wait, so the deadline of the first of them does not bind it
        task = asyncio.get_running_loop().create_task(run(), context=Context())
        mine = _Load(task, tags)
        self._loads[key] = mine
        task.add_done_callback(_retrieve)
        return mine

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)


def _retrieve(task: asyncio.Task[bytes]) -> None:
    """An error that nobody waits for any more is no warning at exit."""
    if not task.cancelled():
        task.exception()
