"""The catalog: films, their owners, who may list them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from streamgate.contracts.auth import Access
from streamgate.contracts.metadata import (
    Asset,
    AssetAccess,
    AssetChanged,
    AssetChanges,
    AssetDeleted,
    AssetPage,
    AssetQuery,
    ColdDays,
    ColdDaysPage,
    MediaReport,
    NewAsset,
    PolicySummary,
)
from streamgate.contracts.transcoder import PosterPayload
from streamgate.domain.asset import AssetState, Visibility
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import Conflict, FieldError, Forbidden, NotFound, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id, new_id
from streamgate.kernel import Check
from streamgate.plugins.metadata import store
from streamgate.plugins.metadata.settings import MetadataSettings
from streamgate.plugins.metadata.store import Film
from streamgate.ports.storage import BlobInfo, BlobStore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.site import Site

MAX_PAGE = 100
COLD_PAGE = 1000
MAX_COLD_DAYS = 36_500
POSTER_PRIORITY = 40


class CatalogService:
    """Implements `contracts.metadata.Catalog`."""

    def __init__(
        self,
        *,
        settings: MetadataSettings,
        database: Database,
        outbox: Outbox,
        jobs: Jobs,
        access: Access,
        blobs: BlobStore,
        site: Site,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbox = outbox
        self._jobs = jobs
        self._access = access
        self._blobs = blobs
        self._site = site
        self._clock = clock

    async def create(self, caller: Caller, new: NewAsset) -> Asset:
        caller.require(Role.CREATOR)
        new = msgspec.structs.replace(new, title=new.title.strip())
        self._check_words(new.title, new.description)
        if new.policy_id is not None:
            await self._access.attachable(caller, new.policy_id)
        asset_id = new_id(Prefix.ASSET)
        async with self._database.write() as tx:
            await store.add(tx, asset_id, caller.account or "", new, self._clock.now_ms())
        return await self.get(caller, asset_id)

    async def get(self, caller: Caller, asset_id: str) -> Asset:
        return (await self._views([await self._listed(caller, asset_id)]))[0]

    async def list(self, caller: Caller, query: AssetQuery) -> AssetPage:
        if not 1 <= query.limit <= MAX_PAGE:
            raise ValidationFailed(f"limit must be from 1 to {MAX_PAGE}.").at("?limit")
        if query.cursor is not None and not is_id(query.cursor, Prefix.ASSET):
            raise ValidationFailed("cursor must be what the page before named as next_cursor.").at("?cursor")
        async with self._database.read() as connection:
            films = await store.find(
                connection,
                limit=query.limit + 1,
                before_id=query.cursor,
                owner=caller.account,
                listed=not query.mine,
                everything=caller.role is Role.ADMIN and not query.mine,
                search=query.search,
            )
        page = films[: query.limit]
        return AssetPage(items=await self._views(page), next_cursor=page[-1].id if len(films) > query.limit else None)

    async def update(self, caller: Caller, asset_id: str, changes: AssetChanges) -> Asset:
        film = await self._managed(caller, asset_id)
        values = self._columns(film, changes)
        if isinstance(changes.policy_id, str) and changes.policy_id != film.policy_id:
            await self._access.attachable(caller, changes.policy_id)
        gate = {"visibility", "policy_id"} & values.keys()
        async with self._database.write() as tx:
            await store.change(tx, asset_id, self._clock.now_ms(), values)
            if gate:
                await self._outbox.announce(tx, AssetChanged(asset_id=asset_id))
            if not isinstance(changes.poster_time, msgspec.UnsetType):
                wish = PosterPayload(asset_id=asset_id, at_s=changes.poster_time, wish=self._clock.now_ms())
                await self._jobs.submit(
                    tx,
                    "transcoder.poster",
                    wish,
                    queue="transcode",
                    priority=POSTER_PRIORITY,
                    owner=film.owner,
                    subject=asset_id,
                )
        return await self.get(caller, asset_id)

    async def delete(self, caller: Caller, asset_id: str) -> None:
        async with self._database.read() as connection:
            film = await store.get(connection, asset_id)
        if film is not None and film.deleted and caller.owns(film.owner):
            return
        await self._managed(caller, asset_id)
        async with self._database.write() as tx:
            if await store.empty(tx, asset_id, self._clock.now_ms()):
                await self._outbox.announce(tx, AssetDeleted(asset_id=asset_id))

    async def require_owner(self, caller: Caller, asset_id: str) -> None:
        await self._managed(caller, asset_id)

    async def access(self, asset_id: str) -> AssetAccess:
        film = await self._existing(asset_id)
        return AssetAccess(
            id=film.id,
            owner=film.owner,
            visibility=film.visibility,
            policy_id=film.policy_id,
            playable=film.playable,
            duration=film.duration,
            poster_key=film.poster_key,
        )

    async def discard(self, asset_id: str) -> None:
        async with self._database.write() as tx:
            if await store.empty(tx, asset_id, self._clock.now_ms(), only_uploading=True):
                await self._outbox.announce(tx, AssetDeleted(asset_id=asset_id))

    async def cold_days(self, cursor: str | None) -> ColdDaysPage:
        async with self._database.read() as connection:
            found = await store.cold_days(connection, cursor or "", COLD_PAGE)
        items = tuple(ColdDays(asset_id=asset_id, days=days) for asset_id, days in found)
        return ColdDaysPage(items, items[-1].asset_id if len(items) == COLD_PAGE else None)

    async def report(self, report: MediaReport) -> bool:
        async with self._database.write() as tx:
            return await store.report(tx, report, self._clock.now_ms())

    async def poster(self, caller: Caller, asset_id: str) -> tuple[BlobInfo, AsyncIterator[bytes]]:
        """The film's poster (JPEG) for whoever may list the film; `NotFound` when it has none yet."""
        film = await self._listed(caller, asset_id)
        info = await self._blobs.stat(film.poster_key) if film.poster_key else None
        if info is None:
            raise NotFound("This film has no poster yet.")
        return info, self._blobs.open(info.key)

    async def health(self) -> Mapping[str, Check]:
        """How many films there are, by state."""
        async with self._database.read() as connection:
            found = await store.counts(connection)
        values = {state.value: float(found.get(state, 0)) for state in AssetState}
        return {"": Check("ok", f"{sum(found.values())} films", values)}

    async def _existing(self, asset_id: str) -> Film:
        film = None
        if is_id(asset_id, Prefix.ASSET):
            async with self._database.read() as connection:
                film = await store.get(connection, asset_id)
        if film is None or film.deleted:
            raise NotFound("There is no such film.")
        return film

    async def _listed(self, caller: Caller, asset_id: str) -> Film:
        """The film, if it is listed to the caller: whoever may not know of it learns nothing."""
        film = await self._existing(asset_id)
        if film.visibility is Visibility.PRIVATE and not caller.owns(film.owner):
            raise NotFound("There is no such film.")
        return film

    async def _managed(self, caller: Caller, asset_id: str) -> Film:
        film = await self._listed(caller, asset_id)
        if not caller.owns(film.owner):
            caller.require(Role.VIEWER)
            raise Forbidden("Only the owner of the film may do this.")
        return film

    def _check_words(self, title: str | None, description: str | None) -> None:
        errors = []
        if title is not None and not 1 <= len(title) <= self._settings.max_title:
            errors.append(FieldError("/title", f"must have 1 to {self._settings.max_title} characters"))
        if description is not None and len(description) > self._settings.max_description:
            errors.append(FieldError("/description", f"must have at most {self._settings.max_description} characters"))
        for pointer, text in (("/title", title), ("/description", description)):
            if text is not None and any(ord(c) < 32 and c not in "\n\t" for c in text):
                errors.append(FieldError(pointer, "must not have control characters"))
        if errors:
            raise ValidationFailed("The film cannot be described like that; see errors.", errors=tuple(errors))

    def _columns(self, film: Film, changes: AssetChanges) -> dict[str, Any]:
        """What differs from the film as it is, as columns."""
        wanted = {
            name: value.value if isinstance(value, Visibility) else value
            for name in ("title", "description", "visibility", "policy_id", "cold_days")
            if not isinstance(value := getattr(changes, name), msgspec.UnsetType)
        }
        if "title" in wanted:
            wanted["title"] = wanted["title"].strip()
        self._check_words(wanted.get("title"), wanted.get("description"))
        days = changes.cold_days
        if isinstance(days, float | int) and not 0 <= days <= MAX_COLD_DAYS:
            detail = f"cold_days must be from 0 (never) to {MAX_COLD_DAYS}, or null for the server's own setting."
            raise ValidationFailed(detail).at("/cold_days")
        poster_time = changes.poster_time
        if not isinstance(poster_time, msgspec.UnsetType):
            if film.duration is None:
                raise Conflict("The film has no picture yet.")
            if not 0 <= poster_time <= film.duration:
                raise ValidationFailed(f"poster_time must be from 0 to {film.duration:g}.").at("/poster_time")
        return {name: value for name, value in wanted.items() if getattr(film, name) != value}

    async def _views(self, films: Sequence[Film]) -> tuple[Asset, ...]:
        """The films as people see them, policies named."""
        ids = tuple({film.policy_id for film in films if film.policy_id is not None})
        named = {summary.id: summary for summary in await self._access.summaries(ids)} if ids else {}
        return tuple(self._view(film, named.get(film.policy_id or "")) for film in films)

    def _view(self, film: Film, policy: PolicySummary | None) -> Asset:
        poster = f"{self._site.public_url}/api/v1/assets/{film.id}/poster.jpg" if film.poster_key else None
        return Asset(
            id=film.id,
            title=film.title,
            description=film.description,
            owner=film.owner,
            state=film.state,
            playable=film.playable,
            progress=film.progress,
            visibility=film.visibility,
            created_at=instant(film.created_ms),
            duration=film.duration,
            width=film.width,
            height=film.height,
            source=film.media.source,
            tracks=film.media.tracks,
            renditions=film.media.renditions,
            policy_id=film.policy_id,
            policy=policy,
            warnings=film.media.warnings,
            error=film.error,
            poster_url=poster,
            cold_days=film.cold_days,
        )
