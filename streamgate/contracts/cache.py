"""CachePolicy, owned by the cache service: statistics and purging. Data never flows through it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from streamgate.contracts.declare import contract, signal, user
from streamgate.domain.identity import Caller, Role


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One cache of one process. ``bytes`` and ``limit_bytes`` count values only."""

    name: str
    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class CacheStatistics(msgspec.Struct, frozen=True):
    tiers: tuple[TierStatistics, ...]


class PurgeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tags`` such as ``asset:ast_…``; empty purges everything."""

    tags: tuple[str, ...] = ()


class PurgeResult(msgspec.Struct, frozen=True):
    """How many entries this process dropped; others drop theirs by the signal."""

    purged: int


class WarmRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Films to bring into the cache: playlists, init segments and the first ``segments`` (1 to 20) of each rendition."""

    asset_ids: tuple[str, ...]
    segments: int = 2


class WarmResult(msgspec.Struct, frozen=True):
    """How many films are being warmed; every process that serves media does it in the background."""

    asked: int


@signal("cache.warm")
class Warm(msgspec.Struct, frozen=True):
    """Every process that serves media brings these films into its cache; what is not encoded is left alone."""

    asset_ids: tuple[str, ...]
    segments: int


@signal("cache.purge")
class Purge(msgspec.Struct, frozen=True):
    """Every process drops what carries one of the tags; no tags: everything."""

    tags: tuple[str, ...]


@contract(service="cache", routes=("/api/v1/cache/stats", "/api/v1/cache/purge", "/api/v1/cache/warm"))
class CachePolicy(Protocol):
    """What is cached, and throwing it away."""

    @user(Role.ADMIN, "cache:read")
    async def statistics(self, caller: Caller) -> CacheStatistics:
        """Every tier of this process."""
        ...

    @user(Role.ADMIN, "cache:write")
    async def purge(self, caller: Caller, request: PurgeRequest) -> PurgeResult:
        """Drop entries by tag, here and (by the signal `Purge`) in every process."""
        ...

    @user(Role.ADMIN, "cache:write")
    async def warm(self, caller: Caller, request: WarmRequest) -> WarmResult:
        """Have the beginnings of films brought into the caches (by the signal `Warm`); `ValidationFailed` for wrong ids."""
        ...
