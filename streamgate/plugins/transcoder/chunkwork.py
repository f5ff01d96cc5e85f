"""Encoding chunks: one that somebody waits for by itself, the others a run at a time."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import Unavailable
from streamgate.media.model import EncodedChunk, EncodedSegment, MediaPlan
from streamgate.media.sandbox import Sandbox
from streamgate.packaging.indexes import Indexes
from streamgate.plugins.transcoder import source_bytes, standing, store
from streamgate.plugins.transcoder.counters import EncodeCounters
from streamgate.plugins.transcoder.films import BEGINNING, ChunkPayload, Films
from streamgate.plugins.transcoder.objects import pieces, put_all, remove_all
from streamgate.plugins.transcoder.scratch import scratch_folder
from streamgate.plugins.transcoder.sources import Sources
from streamgate.plugins.transcoder.store import Film
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobs import Attempt, Snooze

T = TypeVar("T")

TRIES = 3
"""Times that a chunk is tried whose encoder died or took too long, before that part of the film is given up."""

SEGMENTS_AT_ONCE = 4
"""Segments of a chunk that are stored at a time: a store that is far away takes its time for each."""

WORTH_ANOTHER_TRY = frozenset({FailureCode.TIMEOUT, FailureCode.INTERNAL, FailureCode.TOO_LARGE})


class ChunkWork:
    """The handler of chunk jobs. ``timeout_s``: how long one may encode."""

    def __init__(
        self,
        *,
        films: Films,
        sources: Sources,
        blobs: BlobStore,
        sandbox: Sandbox,
        scratch: Path,
        counters: EncodeCounters,
        timeout_s: float,
    ) -> None:
        self._films = films
        self._sources = sources
        self._blobs = blobs
        self._sandbox = sandbox
        self._scratch = scratch
        self._indexes = Indexes(blobs)
        self._counters = counters
        self._timeout_s = timeout_s

    async def chunk(self, attempt: Attempt) -> None:
        """Encode what is still missing of some chunks, for a set of renditions at once."""
        payload = attempt.payload(ChunkPayload)
        films = self._films
        film = await films.get(payload.asset_id)
        if film is None or film.plan is None or film.plan_id != payload.plan_id or film.canceled:
            return
        names, chunks = await self._still_missing(film, film.plan, payload, attempt.job.id)
        if not names:
            return
        folder = scratch_folder(self._scratch, attempt)
        began, won = time.monotonic(), 0
        try:
            encoding = self._encode(film, film.plan, chunks, names, folder, attempt)
            made = await self._giving_way(attempt, encoding)
            attempt.let_go()
            if made is not None:
                won = await self._store(attempt, film, film.plan, made, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._counters.encoded(won, time.monotonic() - began, standing.length(film.plan, chunks))
        await films.tell(film.asset_id)

    async def _still_missing(
        self, film: Film, plan: MediaPlan, payload: ChunkPayload, own_id: str
    ) -> tuple[tuple[str, ...], range]:
        """What this job is to make, renditions and chunks: its own, without what is made and without what smaller jobs make."""
        async with self._films.database.read() as connection:
            marks = await store.chunk_marks(connection, payload.plan_id, payload.chunks)
        parts = payload.parts
        missing = parts - {(name, chunk) for name, chunk, _ in marks}
        if len(parts) > 1:
            for job, other in await self._films.live_jobs_of_run(film, payload.chunk):
                if job.id != own_id and len(other.parts) < len(parts):
                    missing -= other.parts
        few = {r.name: standing.segments(r) for r in plan.encoded}
        missing = {(name, chunk) for name, chunk in missing if plan.chunks[chunk][0] < few.get(name, 0)}
        left = {chunk for _, chunk in missing}
        names = {name for name, _ in missing}
        span = range(min(left), max(left) + 1) if left else range(0)
        return tuple(name for name in payload.renditions if name in names), span

    async def _giving_way(self, attempt: Attempt, encoding: Coroutine[Any, Any, T]) -> T:
        """The encoded chunk. One that is urgent is given up, to be made with the rest, as soon as nobody waits for it any more
        and somebody waits for another: raises `Snooze`."""
        if attempt.job.priority > BEGINNING:
            return await encoding
        work = asyncio.create_task(encoding)
        outranked = asyncio.create_task(self._films.outranked(attempt.job))
        try:
            await asyncio.wait((work, outranked), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                outranked.result()
                raise Snooze(0)
            return work.result()
        finally:
            work.cancel()
            outranked.cancel()
            await asyncio.gather(work, outranked, return_exceptions=True)

    async def _encode(
        self, film: Film, plan: MediaPlan, chunks: range, names: tuple[str, ...], folder: Path, attempt: Attempt
    ) -> EncodedChunk | None:
        """The encoded chunks; None when they were found to be impossible and that is written down."""
        try:
            source = await self._sources.whole(film.asset_id)
            index = standing.index_key(film.asset_id, film.plan_id or "")
            excerpt = await source_bytes.excerpt(self._indexes, index, plan, chunks, names)
            async with source_bytes.opened(source, self._blobs) as data:
                return await self._sandbox.encode(
                    data,
                    plan,
                    excerpt=excerpt,
                    chunks=chunks,
                    renditions=names,
                    folder=folder,
                    timeout_s=self._timeout_s,
                    eager=attempt.job.priority > BEGINNING,
                )
        except MediaRefused as refused:
            if refused.failure.code in WORTH_ANOTHER_TRY and attempt.job.failures + 1 < TRIES:
                raise Unavailable(refused.failure.detail) from None
            structlog.get_logger().warning(
                "a part of a film cannot be encoded",
                asset_id=film.asset_id,
                chunks=f"{chunks.start}-{chunks.stop}",
                code=refused.failure.code,
            )
            async with attempt.completing() as tx:
                await self._write_impossible(tx, film, chunks, names, refused.failure.code)
            return None

    async def _write_impossible(
        self, tx: Transaction, film: Film, chunks: range, names: tuple[str, ...], code: FailureCode
    ) -> None:
        now = self._films.clock.now_ms()
        takes_part = {r.name: r for r in film.plan.encoded} if film.plan is not None else {}
        for chunk in chunks:
            for name in names:
                if film.plan is None or not standing.takes_part(takes_part[name], film.plan.chunks[chunk]):
                    continue
                await store.add_chunk(
                    tx,
                    asset_id=film.asset_id,
                    plan_id=film.plan_id or "",
                    rendition=name,
                    chunk=chunk,
                    now_ms=now,
                    error_code=code.value,
                )
        await store.change(tx, film.asset_id, now)
        self._films.changed(tx, film.asset_id)

    async def _store(self, attempt: Attempt, film: Film, plan: MediaPlan, made: EncodedChunk, folder: Path) -> int:
        """Put the segments under prefixes of this attempt, one for each chunk of a rendition, then commit rows and completion
        together; the first one wins. How many chunks nobody else had made before."""
        parts: dict[tuple[str, int], list[EncodedSegment]] = defaultdict(list)
        for segment in sorted(made.segments, key=lambda segment: segment.number):
            parts[segment.rendition, standing.chunk_of(plan, segment.number) or 0].append(segment)
        tag = f"{attempt.job.id[-8:]}-{attempt.job.attempt}/"
        prefixes = {
            (name, chunk): f"{standing.folder(film.asset_id, film.plan_id or '', name)}{plan.chunks[chunk][0]}-{tag}"
            for name, chunk in parts
        }
        objects = [
            (f"{prefixes[part]}{segment.number}.m4s", pieces(folder / segment.file))
            for part, segments in parts.items()
            for segment in segments
        ]
        kept: set[str] = set()
        try:
            await put_all(self._blobs, objects, at_once=SEGMENTS_AT_ONCE)
            kept = await self._commit(attempt, film, prefixes, parts)
        finally:
            await remove_all(self._blobs, (key for key, _ in objects if key.rpartition("/")[0] + "/" not in kept))
        return len(kept)

    async def _commit(
        self,
        attempt: Attempt,
        film: Film,
        prefixes: dict[tuple[str, int], str],
        parts: dict[tuple[str, int], list[EncodedSegment]],
    ) -> set[str]:
        """Write the rows and complete the job as one; the prefixes of what nobody else had made before."""
        plan_id, won = film.plan_id or "", set()
        async with attempt.completing() as tx:
            current = await store.get(tx, film.asset_id)
            now = self._films.clock.now_ms()
            if current is not None and current.plan_id == plan_id:
                for (name, chunk), segments in parts.items():
                    if await store.add_chunk(
                        tx,
                        asset_id=film.asset_id,
                        plan_id=plan_id,
                        rendition=name,
                        chunk=chunk,
                        now_ms=now,
                        prefix=prefixes[name, chunk],
                        lengths=[segment.length for segment in segments],
                    ):
                        won.add(prefixes[name, chunk])
                await store.change(tx, film.asset_id, now)
            self._films.changed(tx, film.asset_id)
        return won
