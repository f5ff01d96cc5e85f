"""The transcoder's jobs: looking at a film, taking its picture, making its storyboard. Each is safe to run again at any time."""

from __future__ import annotations

from pathlib import Path

import structlog

from streamgate.contracts.transcoder import MediaReplaced, PosterPayload
from streamgate.contracts.upload import IngestPayload, Uploads
from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import NotFound, Unavailable
from streamgate.media.model import LadderSettings, Limits
from streamgate.media.sandbox import Sandbox
from streamgate.plugins.transcoder import planned, source_bytes, standing, store
from streamgate.plugins.transcoder.chunkwork import TRIES, WORTH_ANOTHER_TRY, ChunkWork
from streamgate.plugins.transcoder.cold import submit_removal
from streamgate.plugins.transcoder.counters import EncodeCounters
from streamgate.plugins.transcoder.films import (
    BEGINNING,
    CHUNK,
    INGEST,
    PICTURE,
    POSTER,
    QUEUE,
    SHEET,
    STORYBOARD,
    Films,
    SheetPayload,
)
from streamgate.plugins.transcoder.indexing import Indexing
from streamgate.plugins.transcoder.objects import remove_all
from streamgate.plugins.transcoder.planning import Planning
from streamgate.plugins.transcoder.scans import Scans
from streamgate.plugins.transcoder.scratch import scratch_folder
from streamgate.plugins.transcoder.settings import TranscoderSettings
from streamgate.plugins.transcoder.sources import Sources, checked
from streamgate.ports.storage import BlobStore
from streamgate.runtime.jobs import Attempt, Handler, PermanentFailure
from streamgate.runtime.outbox import Outbox

STILL_READ_S = 60.0
"""Seconds that what was served of an upload may still be asked for after the film has its plan."""


class TranscodeWork:
    """Handlers of the queue ``transcode``."""

    def __init__(
        self,
        *,
        settings: TranscoderSettings,
        films: Films,
        uploads: Uploads,
        blobs: BlobStore,
        sandbox: Sandbox,
        outbox: Outbox,
        scratch: Path,
        counters: EncodeCounters,
    ) -> None:
        self._settings = settings
        self._films = films
        self._sources = Sources(uploads, blobs)
        self._blobs = blobs
        self._sandbox = sandbox
        self._outbox = outbox
        self._scratch = scratch
        self._indexing = Indexing(films, blobs)
        self.ladder = LadderSettings(
            rungs=settings.rungs,
            preset=settings.preset,
            segment_s=settings.segment_s,
            audio_bitrate=settings.audio_bitrate,
            max_frame_rate=settings.max_frame_rate,
            passthrough=settings.passthrough,
        )
        self._chunks = ChunkWork(
            films=films,
            sources=self._sources,
            blobs=blobs,
            sandbox=sandbox,
            scratch=scratch,
            counters=counters,
            timeout_s=settings.chunk_timeout_s,
        )
        self.limits = Limits(max_duration_s=settings.max_duration_s, max_pixels=settings.max_pixels)
        self.scans, limit_s = Scans(), settings.plan_timeout_s
        self._planning = Planning(films, self._sources, blobs, sandbox, self.ladder, self.limits, limit_s, self.scans)

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        own: dict[str, Handler] = {
            INGEST: self.ingest,
            CHUNK: self._chunks.chunk,
            POSTER: self.poster,
            SHEET: self.sheet,
        }
        return own | self._indexing.handlers()

    async def ingest(self, attempt: Attempt) -> None:
        """Look at an uploaded film: plan it and submit its chunks, or say why it cannot be played."""
        asset_id = attempt.payload(IngestPayload).asset_id
        films = self._films
        async with films.database.write() as tx:
            await attempt.fence(tx)
            await store.open_film(tx, asset_id, attempt.job.owner, films.clock.now_ms())
            await store.change(tx, asset_id, films.clock.now_ms(), growing=False)
        again = attempt.job.attempt > 1
        # The catalog is told meanwhile that the film is looked at.
        planning = self._planning.plan(asset_id, scratch_folder(self._scratch, attempt), again=again)
        try:
            plan_id, plan, index = await checked(planning, films.tell(asset_id))
        except MediaRefused as refused:
            await self._refuse(attempt, asset_id, refused)
        now = films.clock.now_ms()
        async with attempt.completing() as tx:
            old = await store.get(tx, asset_id)
            await store.insert_plan(tx, asset_id, plan_id, plan, now)
            film = await store.get(tx, asset_id)
            if old is not None and old.growth is not None:
                left = planned.left_behind(asset_id, plan_id, old.growth)
                await submit_removal(films, tx, old, [left], after_s=STILL_READ_S)
            if film is not None:
                await films.submit_missing(tx, film)
                if index is not None:
                    await self._indexing.submit(tx, asset_id, film.owner, plan_id, index)
                if plan.width is not None:
                    await films.jobs.submit(
                        tx,
                        POSTER,
                        PosterPayload(asset_id=asset_id),
                        queue=QUEUE,
                        priority=PICTURE,
                        owner=film.owner,
                        subject=asset_id,
                    )
            await self._outbox.announce(tx, MediaReplaced(asset_id=asset_id))
            films.changed(tx, asset_id)
        await films.tell(asset_id)
        if index is not None:
            await self._indexing.finish(asset_id, plan_id, index)
        if plan.remuxed_before:
            await planned.forget_strays(self._blobs, asset_id, plan_id, plan.parts)
        if old is not None and old.plan_id is not None:
            await self._blobs.delete_prefix(f"assets/{asset_id}/{old.plan_id}/")

    async def poster(self, attempt: Attempt) -> None:
        """Take a picture of the film for its listing; a film without one is no failure."""
        payload = attempt.payload(PosterPayload)
        films = self._films
        film = await films.get(payload.asset_id)
        if film is None or film.plan is None or film.plan.width is None or film.poster_wish > payload.wish:
            return
        try:
            source = await self._sources.named(film.asset_id)
            async with source_bytes.opened(source, self._blobs) as data:
                jpeg = await self._sandbox.poster(data, film.plan, at_s=payload.at_s)
        except (MediaRefused, NotFound) as error:
            structlog.get_logger().warning("no poster", asset_id=film.asset_id, reason=str(error))
            return
        if not jpeg:
            return
        key = f"assets/{film.asset_id}/poster/{attempt.job.id}.jpg"
        await self._blobs.put(key, jpeg)
        kept = False
        async with attempt.completing() as tx:
            now = await store.get(tx, film.asset_id)
            if now is not None and now.poster_wish <= payload.wish:
                values = {"poster_key": key, "poster_wish": payload.wish}
                kept = await store.change(tx, film.asset_id, films.clock.now_ms(), **values)
        await remove_all(self._blobs, [key] if not kept else [film.poster_key] if film.poster_key else [])
        await films.tell(film.asset_id)

    async def sheet(self, attempt: Attempt) -> None:
        """Make a sheet of the storyboard; a film without one is no failure."""
        payload = attempt.payload(SheetPayload)
        film = await self._films.get(payload.asset_id)
        if film is None or film.plan is None or film.plan_id != payload.plan_id or film.canceled:
            return
        async with self._films.database.read() as connection:
            if await store.get_chunk(connection, payload.plan_id, STORYBOARD, payload.number) is not None:
                return
        jpeg, code = b"", FailureCode.MALFORMED_MEDIA
        try:
            source = await self._sources.whole(film.asset_id)
            async with source_bytes.opened(source, self._blobs) as data:
                eager, limit_s = attempt.job.priority > BEGINNING, self._settings.chunk_timeout_s
                jpeg = await self._sandbox.sheet(data, film.plan, payload.number, eager=eager, timeout_s=limit_s)
                attempt.let_go()
        except MediaRefused as refused:
            code = refused.failure.code
            structlog.get_logger().warning("no storyboard", asset_id=film.asset_id, code=code)
        folder = standing.folder(film.asset_id, payload.plan_id, STORYBOARD)
        prefix = f"{folder}{attempt.job.id[-8:]}-{attempt.job.attempt}/"
        key = f"{prefix}{payload.number}.jpg"
        won = False
        try:
            if jpeg:
                await self._blobs.put(key, jpeg)
            won = await self._commit_sheet(attempt, payload, prefix, len(jpeg), code)
        finally:
            await remove_all(self._blobs, [key] if jpeg and not won else [])

    async def _commit_sheet(
        self, attempt: Attempt, payload: SheetPayload, prefix: str, length: int, code: FailureCode
    ) -> bool:
        """Write the sheet's row and complete the job as one; False when another attempt was first or the plan is gone.

        ``length`` in bytes; 0: the sheet cannot be made, for the reason ``code``.
        """
        won = False
        async with attempt.completing() as tx:
            current = await store.get(tx, payload.asset_id)
            if current is not None and current.plan_id == payload.plan_id:
                won = await store.add_chunk(
                    tx,
                    asset_id=payload.asset_id,
                    plan_id=payload.plan_id,
                    rendition=STORYBOARD,
                    chunk=payload.number,
                    now_ms=self._films.clock.now_ms(),
                    prefix=prefix if length else None,
                    lengths=[length] if length else (),
                    error_code=None if length else code.value,
                )
            self._films.changed(tx, payload.asset_id)
        return won

    async def _refuse(self, attempt: Attempt, asset_id: str, refused: MediaRefused) -> None:
        """The film cannot be played: say so, and end the job as failed. Raises `PermanentFailure`, or for another try."""
        code, detail = refused.failure.code, refused.failure.detail
        if code in WORTH_ANOTHER_TRY and attempt.job.failures + 1 < TRIES:
            raise Unavailable(detail)
        films = self._films
        async with films.database.write() as tx:
            await attempt.fence(tx)
            now = films.clock.now_ms()
            await store.change(tx, asset_id, now, error_code=code.value, error_detail=detail)
            films.changed(tx, asset_id)
        await films.tell(asset_id)
        raise PermanentFailure(code.value, detail)
