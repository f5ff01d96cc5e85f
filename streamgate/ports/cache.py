"""Cache: bytes by key, for a while. A cache may forget anything at any time and is never the only home of a fact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tier:
    """Statistics of one tier since start; bytes count values only."""

    name: str
    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class Cache(ABC):
    """Keys are text, values bytes. A cache that is away behaves as an empty one."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The value, or None when it is not there or its time is over."""

    def peek(self, key: str) -> bytes | None:
        """The value if this process has it at hand, without waiting for anything; counts as a use. None says nothing."""
        return None

    @abstractmethod
    async def set(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        """Keep a value for at most ``ttl_s`` seconds; a value larger than the cache is not kept."""

    @abstractmethod
    def keep(self, key: str, value: bytes, ttl_s: float, tags: tuple[str, ...] = ()) -> None:
        """Let this process have at hand what `peek` did not find and was made instead, without waiting for anything: the same bytes
        whoever makes them. Counts as a miss."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Forget a key."""

    @abstractmethod
    async def purge(self, tags: tuple[str, ...]) -> int:
        """Forget everything set with one of the tags (no tags: everything); how many entries that were."""

    @abstractmethod
    async def get_or_load(
        self, key: str, ttl_s: float, load: Callable[[], Awaitable[bytes]], tags: tuple[str, ...] = ()
    ) -> bytes:
        """The value, loaded once for all who wait for it (single-flight in this process).

        An error of ``load`` reaches everyone who waits and nothing is kept. A waiter that is cancelled does not
        cancel the load for the others; when none is left, the load is cancelled. A purge during the load keeps the
        result from being stored.
        """

    @abstractmethod
    async def tiers(self) -> tuple[Tier, ...]:
        """Statistics."""
