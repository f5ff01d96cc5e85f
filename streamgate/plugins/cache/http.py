"""Routes of the cache service."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from streamgate.contracts.cache import CachePolicy, CacheStatistics, PurgeRequest, PurgeResult, WarmRequest, WarmResult
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm


def controllers(policy: CachePolicy) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class CacheController(Controller):
        path = "/api/v1/cache"
        tags = ("cache",)
        opt = realm("cache")

        @get("/stats", opt=least(Role.ADMIN), operation_id="cacheStatistics", summary="Statistics of the cache")
        async def read(self, caller: NamedDependency[Caller]) -> CacheStatistics:
            """Entries, bytes, hits and misses of each tier since the process began."""
            return await policy.statistics(caller)

        @post("/purge", opt=least(Role.ADMIN), operation_id="purgeCache", summary="Purge the cache", status_code=200)
        async def purge(self, caller: NamedDependency[Caller], data: JSONBody[PurgeRequest]) -> PurgeResult:
            """Drop what carries one of the tags (none: everything), in every process; counts what this one dropped."""
            return await policy.purge(caller, data)

        @post("/warm", opt=least(Role.ADMIN), operation_id="warmCache", summary="Warm the cache", status_code=202)
        async def warm(self, caller: NamedDependency[Caller], data: JSONBody[WarmRequest]) -> WarmResult:
            """Bring the beginnings of films into the cache of every process that serves media, in the background."""
            return await policy.warm(caller, data)

    return [CacheController]
