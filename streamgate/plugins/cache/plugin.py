"""The cache service: statistics and purging. Data never flows through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.cache import CachePolicy, Purge
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.cache.settings import CacheSettings
from streamgate.ports.bus import Bus
from streamgate.ports.cache import Cache
from streamgate.runtime.telemetry import Metrics

LOOK_S = 15.0


@asynccontextmanager
async def setup(context: Context[CacheSettings]) -> AsyncGenerator[Parts, None]:
    """Start the cache service."""
    from streamgate.plugins.cache.http import controllers
    from streamgate.plugins.cache.service import CacheService, TierMetrics
    from streamgate.runtime.background import every

    cache = context.need(Cache)
    service = CacheService(cache, context.need(Bus), context.settings.most_tags)
    policy: CachePolicy = service
    metrics = TierMetrics(cache, context.need(Metrics).registry)
    async with every(LOOK_S, metrics.look, name="reading of cache statistics", at_once=True):
        yield Parts(
            provides={CachePolicy: policy},
            routes=controllers(policy),
            listens={Purge: service.obey},
            health=service.health,
        )


plugin = Plugin(
    name="cache", settings=CacheSettings, setup=setup, requires=(Cache, Bus, Metrics), provides=(CachePolicy,)
)
