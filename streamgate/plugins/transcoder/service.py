"""Transcoding: the timeline of a film, its segments on demand, retry and cancel."""

from __future__ import annotations

import asyncio

from streamgate.contracts.metadata import AssetDeleted, Catalog
from streamgate.contracts.transcoder import Presentation, SegmentObject
from streamgate.domain.asset import AssetState
from streamgate.domain.errors import Conflict, NotFound, Unavailable
from streamgate.domain.identity import Caller
from streamgate.media.model import MediaPlan
from streamgate.plugins.transcoder import standing, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.films import BEGINNING, INGEST, MADE_BY, STORYBOARD, Films
from streamgate.plugins.transcoder.store import ChunkRow, Film
from streamgate.plugins.transcoder.wishes import Wishes
from streamgate.ports.storage import BlobStore


class TranscodingService:
    """Implements `contracts.transcoder.Transcoding`."""

    def __init__(
        self, *, films: Films, catalog: Catalog, blobs: BlobStore, arrivals: Arrivals, draining: asyncio.Event
    ) -> None:
        self._films = films
        self._catalog = catalog
        self._blobs = blobs
        self._arrivals = arrivals
        self._wishes = Wishes(films)
        self._draining = draining

    async def presentation(self, asset_id: str) -> Presentation:
        film = await self._films.get(asset_id)
        found = standing.presentation(film) if film is not None and film.error is None else None
        if film is None or found is None:
            raise NotFound("The film cannot be played, or not yet.")
        await self._films.watched(film)
        return found

    async def ensure(self, asset_id: str, rendition: str, number: int) -> SegmentObject:
        with self._wishes.wish() as wish, self._arrivals.listening(asset_id) as ear:
            while True:
                film, plan, chunk = await self._place(asset_id, rendition, number)
                row = await self._made(film, rendition, chunk)
                if row is not None:
                    return _segment(plan, row, chunk, number)
                await wish.ask(film, rendition, chunk)
                await ear.pause()

    async def stored(self, asset_id: str, rendition: str, number: int) -> SegmentObject | None:
        film, plan, chunk = await self._place(asset_id, rendition, number)
        async with self._films.database.read() as connection:
            row = await store.get_chunk(connection, film.plan_id or "", rendition, chunk)
        return None if row is None else _segment(plan, row, chunk, number)

    async def sheet(self, asset_id: str, number: int) -> SegmentObject:
        asked = False
        with self._arrivals.listening(asset_id) as ear:
            while True:
                film = await self._sheeted(asset_id, number)
                row = await self._made(film, STORYBOARD, number)
                if row is not None:
                    if row.prefix is None:
                        raise NotFound("This part of the film is damaged and has no pictures.")
                    return SegmentObject(f"{row.prefix}{number}.jpg", row.lengths[0])
                if not asked:
                    async with self._films.database.write() as tx:
                        await self._films.submit_sheet(tx, film, number, BEGINNING)
                    asked = True
                await ear.pause()

    async def lost(self, asset_id: str, rendition: str, number: int, key: str) -> None:
        if rendition == STORYBOARD:
            film, chunk = await self._sheeted(asset_id, number), number
        else:
            film, _, chunk = await self._place(asset_id, rendition, number)
        prefix = key.rpartition("/")[0] + "/"
        async with self._films.database.write() as tx:
            if await store.drop_chunk(tx, film.plan_id or "", rendition, chunk, prefix):
                await store.change(tx, asset_id, self._films.clock.now_ms(), settled=False)

    async def retry(self, caller: Caller, asset_id: str) -> None:
        await self._catalog.require_owner(caller, asset_id)
        film = await self._films.get(asset_id)
        state = AssetState.UPLOADING if film is None else (await self._films.stand(film)).state
        if film is None or state not in {AssetState.FAILED, AssetState.CANCELED}:
            raise Conflict(f"The film is {state}; only a failed or canceled one can be retried.")
        now = self._films.clock.now_ms()
        async with self._films.database.write() as tx:
            await store.drop_failed(tx, asset_id)
            await store.change(tx, asset_id, now, canceled=False, error_code=None, error_detail=None, settled=False)
            if film.plan is None:
                await self._films.submit_ingest(tx, asset_id, film.owner)
            else:
                await self._films.submit_missing(tx, film)
        await self._films.tell(asset_id)

    async def cancel(self, caller: Caller, asset_id: str) -> None:
        await self._catalog.require_owner(caller, asset_id)
        film = await self._films.get(asset_id)
        if film is not None and not film.growing:
            state = (await self._films.stand(film)).state
            if state in {AssetState.READY, AssetState.FAILED}:
                raise Conflict(f"The film is {state} already.")
        elif not await self._films.jobs.find(subject=asset_id, kind=INGEST, limit=1):
            raise Conflict("The film is still being uploaded; end the upload instead.")
        now = self._films.clock.now_ms()
        async with self._films.database.write() as tx:
            await store.open_film(tx, asset_id, caller.account, now)
            await store.change(tx, asset_id, now, canceled=True)
            await self._films.jobs.cancel_subject(tx, asset_id, MADE_BY)
            self._films.changed(tx, asset_id)
        await self._films.tell(asset_id)

    async def asset_deleted(self, fact: AssetDeleted) -> None:
        """Listens: stop the film's encoders, forget it, and remove its objects."""
        async with self._films.database.write() as tx:
            await self._films.jobs.cancel_subject(tx, fact.asset_id)
            await store.drop_film(tx, fact.asset_id)
            self._films.changed(tx, fact.asset_id)
        await self._blobs.delete_prefix(f"assets/{fact.asset_id}/")

    async def _made(self, film: Film, rendition: str, chunk: int) -> ChunkRow | None:
        """What is written of a chunk; None while it is worth waiting for. Raises `Unavailable` when it is not."""
        async with self._films.database.read() as connection:
            row = await store.get_chunk(connection, film.plan_id or "", rendition, chunk)
        if row is None and self._draining.is_set():
            raise Unavailable("This server is being restarted. Try again in a moment.", retry_after=2)
        if row is None and film.canceled:
            raise Unavailable("Encoding of this film was stopped, and this part is not encoded.")
        return row

    async def _sheeted(self, asset_id: str, number: int) -> Film:
        """The film, which has that sheet of a storyboard."""
        film = await self._films.get(asset_id)
        if film is None or film.plan is None or film.error is not None or film.plan.storyboard is None:
            raise NotFound("The film has no storyboard, or not yet.")
        if not 0 <= number < film.plan.storyboard.sheets:
            raise NotFound("The storyboard has no such sheet.")
        return film

    async def _place(self, asset_id: str, rendition: str, number: int) -> tuple[Film, MediaPlan, int]:
        """The film, its plan, and the chunk that holds the segment."""
        film = await self._films.get(asset_id)
        if film is None or film.plan is None or film.error is not None:
            raise NotFound("The film cannot be played, or not yet.")
        planned = next((r for r in film.plan.encoded if r.name == rendition), None)
        if planned is None or not 0 <= number < standing.segments(planned):
            raise NotFound("The film has no such segment.")
        chunk = standing.chunk_of(film.plan, number)
        if chunk is None:
            raise NotFound("The film has no such segment.")
        return film, film.plan, chunk


def _segment(plan: MediaPlan, row: ChunkRow, chunk: int, number: int) -> SegmentObject:
    if row.prefix is None:
        raise NotFound("This part of the film is damaged and cannot be played.")
    return SegmentObject(f"{row.prefix}{number}.m4s", row.lengths[number - plan.chunks[chunk][0]])
