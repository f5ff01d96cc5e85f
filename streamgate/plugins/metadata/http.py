"""Routes of the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, get, patch
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import ServerSentEvent, Stream
from litestar.response.sse import ServerSentEventMessage

from streamgate.contracts.metadata import Asset, AssetChanges, AssetPage, AssetQuery
from streamgate.domain.asset import AssetState
from streamgate.domain.errors import NotFound
from streamgate.domain.identity import Caller, Role
from streamgate.plugins.metadata.service import CatalogService
from streamgate.runtime.http import least, realm

EVENTS_EVERY_S = 1.0
KEEP_ALIVE_S = 15.0
FINAL = frozenset({AssetState.READY, AssetState.FAILED, AssetState.CANCELED})

Limit = Annotated[int, QueryParameter(name="limit", description="Items on a page, 1 to 100.")]
Cursor = Annotated[str | None, QueryParameter(name="cursor", description="What the page before named as next_cursor.")]
Search = Annotated[str | None, QueryParameter(name="search", description="Words in title or description.")]
Mine = Annotated[bool, QueryParameter(name="mine", description="Only the caller's own films.")]


def controllers(catalog: CatalogService, draining: asyncio.Event) -> list[type[Controller]]:
    """The controllers over the catalog; ``draining`` ends event streams."""

    class AssetController(Controller):
        path = "/api/v1/assets"
        tags = ("assets",)
        opt = realm("assets")

        @get("/", opt=least(Role.ANONYMOUS), operation_id="listAssets", summary="List films")
        async def listing(
            self,
            caller: NamedDependency[Caller],
            limit: Limit = 20,
            cursor: Cursor = None,
            search: Search = None,
            mine: Mine = False,
        ) -> AssetPage:
            """Newest first: public and gated films, and the caller's own; an administrator sees all."""
            return await catalog.list(caller, AssetQuery(limit=limit, cursor=cursor, search=search, mine=mine))

        @get("/{asset_id:str}", opt=least(Role.ANONYMOUS), operation_id="getAsset", summary="Read a film")
        async def read(self, caller: NamedDependency[Caller], asset_id: FromPath[str]) -> Asset:
            """The film; 404 unless it is listed to the caller."""
            return await catalog.get(caller, asset_id)

        @patch("/{asset_id:str}", opt=least(Role.CREATOR), operation_id="updateAsset", summary="Change a film")
        async def update(
            self, caller: NamedDependency[Caller], asset_id: FromPath[str], data: JSONBody[AssetChanges]
        ) -> Asset:
            """Title, description, visibility, policy, poster time, days until its ladder is dropped: what is left out stays."""
            return await catalog.update(caller, asset_id, data)

        @delete("/{asset_id:str}", opt=least(Role.CREATOR), operation_id="deleteAsset", summary="Delete a film")
        async def remove(self, caller: NamedDependency[Caller], asset_id: FromPath[str]) -> None:
            """The film and everything made from it. Playback of it ends."""
            await catalog.delete(caller, asset_id)

        @get(
            "/{asset_id:str}/poster.jpg",
            opt=least(Role.ANONYMOUS),
            operation_id="getPoster",
            summary="Read a film's poster",
            media_type="image/jpeg",
        )
        async def poster(
            self, caller: NamedDependency[Caller], asset_id: FromPath[str], request: Request[Any, Any, Any]
        ) -> Response[bytes]:
            """A picture for everybody who may list the film, also a gated one."""
            info, data = await catalog.poster(caller, asset_id)
            headers = {
                "etag": f'"{info.etag}"',
                "cache-control": "private, max-age=300",
                "x-content-type-options": "nosniff",
            }
            if f'"{info.etag}"' in request.headers.get("if-none-match", ""):
                return Response(b"", status_code=304, headers=headers)
            return Response(b"".join([piece async for piece in data]), media_type="image/jpeg", headers=headers)

        @get(
            "/{asset_id:str}/events",
            opt=least(Role.CREATOR),
            operation_id="assetEvents",
            summary="Follow a film's state and progress",
        )
        async def events(self, caller: NamedDependency[Caller], asset_id: FromPath[str]) -> Stream:
            """Server-sent events: ``asset`` with state, playable and progress whenever they change; ends with the final state."""
            await catalog.require_owner(caller, asset_id)
            return ServerSentEvent(follow(catalog, caller, asset_id, draining))

    return [AssetController]


async def follow(
    catalog: CatalogService, caller: Caller, asset_id: str, draining: asyncio.Event
) -> AsyncIterator[ServerSentEventMessage]:
    """State, playable and progress of a film whenever they change, until the state is final; a comment now and then."""
    last: dict[str, object] = {}
    quiet = 0.0
    while not draining.is_set():
        try:
            asset = await catalog.get(caller, asset_id)
        except NotFound:
            yield ServerSentEventMessage(event="deleted", data="{}")
            return
        now: dict[str, object] = {
            "id": asset.id,
            "state": asset.state.value,
            "playable": asset.playable,
            "progress": round(asset.progress, 4),
            "error": msgspec.to_builtins(asset.error),
        }
        if now != last:
            last, quiet = now, 0.0
            yield ServerSentEventMessage(event="asset", data=msgspec.json.encode(now).decode())
        elif quiet >= KEEP_ALIVE_S:
            quiet = 0.0
            yield ServerSentEventMessage(comment="still here")
        if asset.state in FINAL:
            return
        quiet += EVENTS_EVERY_S
        await asyncio.sleep(EVENTS_EVERY_S)
