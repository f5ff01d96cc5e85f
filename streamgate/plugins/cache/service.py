"""What is cached, and throwing it away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamgate.contracts.cache import (
    CacheStatistics,
    Purge,
    PurgeRequest,
    PurgeResult,
    TierStatistics,
    Warm,
    WarmRequest,
    WarmResult,
)
from streamgate.domain.errors import ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id
from streamgate.kernel import Check
from streamgate.ports.bus import Bus
from streamgate.ports.cache import Cache, Tier
from streamgate.runtime.events import send_signal

LONGEST_TAG = 200
MOST_SEGMENTS = 20


class CacheService:
    """Implements `contracts.cache.CachePolicy` over this process's `Cache`, and obeys `Purge` from elsewhere."""

    def __init__(self, cache: Cache, bus: Bus, most_tags: int) -> None:
        self._cache = cache
        self._bus = bus
        self._most_tags = most_tags

    async def statistics(self, caller: Caller) -> CacheStatistics:
        caller.require(Role.ADMIN)
        return CacheStatistics(
            tiers=tuple(
                TierStatistics(
                    name=tier.name,
                    entries=tier.entries,
                    bytes=tier.bytes,
                    limit_bytes=tier.limit_bytes,
                    hits=tier.hits,
                    misses=tier.misses,
                    evictions=tier.evictions,
                )
                for tier in await self._cache.tiers()
            )
        )

    async def purge(self, caller: Caller, request: PurgeRequest) -> PurgeResult:
        caller.require(Role.ADMIN)
        tags = tuple(dict.fromkeys(request.tags))
        if len(tags) > self._most_tags:
            raise ValidationFailed(f"A purge names at most {self._most_tags} tags.").at("/tags")
        if not all(0 < len(tag) <= LONGEST_TAG for tag in tags):
            raise ValidationFailed(f"A tag has from 1 to {LONGEST_TAG} characters.").at("/tags")
        # Here first, so that the answer counts what was there; the signal comes back here too and finds nothing left.
        purged = await self._cache.purge(tags)
        await send_signal(self._bus, Purge(tags=tags))
        structlog.get_logger().info("cache purged", tags=list(tags), purged=purged, by=caller.account)
        return PurgeResult(purged=purged)

    async def warm(self, caller: Caller, request: WarmRequest) -> WarmResult:
        caller.require(Role.ADMIN)
        asset_ids = tuple(dict.fromkeys(request.asset_ids))
        if not 1 <= len(asset_ids) <= self._most_tags or not all(is_id(one, Prefix.ASSET) for one in asset_ids):
            raise ValidationFailed(f"asset_ids must be 1 to {self._most_tags} ids of films.").at("/asset_ids")
        if not 1 <= request.segments <= MOST_SEGMENTS:
            raise ValidationFailed(f"segments must be from 1 to {MOST_SEGMENTS}.").at("/segments")
        await send_signal(self._bus, Warm(asset_ids=asset_ids, segments=request.segments))
        structlog.get_logger().info("cache warming asked for", films=len(asset_ids), by=caller.account)
        return WarmResult(asked=len(asset_ids))

    async def obey(self, purge: Purge) -> None:
        """Drop what the signal names from this process's cache."""
        await self._cache.purge(purge.tags)

    async def health(self) -> Mapping[str, Check]:
        """A check per tier: what it holds, and how often it was asked and had it."""
        return {
            tier.name: Check(
                "ok",
                f"{tier.entries} values",
                {
                    "entries": float(tier.entries),
                    "bytes": float(tier.bytes),
                    "hits": float(tier.hits),
                    "misses": float(tier.misses),
                },
            )
            for tier in await self._cache.tiers()
        }


class TierMetrics(Collector):
    """The statistics of the cache's tiers as they were when last looked at, as metrics."""

    def __init__(self, cache: Cache, registry: CollectorRegistry) -> None:
        self._cache = cache
        self._tiers: tuple[Tier, ...] = ()
        registry.register(self)

    async def look(self) -> None:
        """Read the statistics."""
        self._tiers = await self._cache.tiers()

    def collect(self) -> Iterable[Metric]:
        size = GaugeMetricFamily("sg_cache_bytes", "Bytes of values that are cached.", labels=["tier"])
        entries = GaugeMetricFamily("sg_cache_entries", "Values that are cached.", labels=["tier"])
        asked = CounterMetricFamily("sg_cache_requests", "Look-ups by their outcome.", labels=["tier", "result"])
        evicted = CounterMetricFamily("sg_cache_evictions", "Values dropped to make room.", labels=["tier"])
        for tier in self._tiers:
            size.add_metric([tier.name], tier.bytes)
            entries.add_metric([tier.name], tier.entries)
            asked.add_metric([tier.name, "hit"], tier.hits)
            asked.add_metric([tier.name, "miss"], tier.misses)
            evicted.add_metric([tier.name], tier.evictions)
        return (size, entries, asked, evicted)
