"""Films and the jobs that make them: what is to be made, by which job, how urgently; and telling the catalog."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from streamgate.contracts.metadata import Catalog
from streamgate.contracts.upload import IngestPayload
from streamgate.domain.clock import Clock
from streamgate.domain.errors import StreamGateError
from streamgate.media.model import MediaPlan
from streamgate.plugins.transcoder import standing, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.standing import Standing
from streamgate.plugins.transcoder.store import Film
from streamgate.runtime.database import Database, Transaction, after_commit
from streamgate.runtime.jobs import JobRow, Jobs

QUEUE = "transcode"
INGEST, CHUNK, POSTER = "transcoder.ingest", "transcoder.chunk", "transcoder.poster"
SHEET = "transcoder.storyboard"
REMOVAL = "transcoder.removal"

STORYBOARD = "storyboard"
"""What the rows of the storyboard's sheets call their rendition; no rendition of a film is named so."""

REQUESTED = 0
"""Priority of a chunk that somebody waits for."""

INGESTING = 5
BEGINNING = 10
"""The first chunk of the lowest rung: with it the film plays. What is at least this urgent is never stopped for others."""

FIRST = 20
PICTURE = 30
SHEETS = 60
REST = 100

WATCHED_EVERY_S = 3600.0
"""How exactly it is kept when a film was last watched."""

QUIET_S = 60.0
"""A film that is not at its end and to which nothing happened for this long is looked after."""


class ChunkPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a chunk job: what to encode of a plan."""

    asset_id: str
    plan_id: str
    chunk: int
    renditions: tuple[str, ...]


class SheetPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a storyboard job: one sheet of a plan."""

    asset_id: str
    plan_id: str
    number: int


class Films:
    """The films of this database as their jobs see them."""

    def __init__(self, *, database: Database, jobs: Jobs, catalog: Catalog, arrivals: Arrivals, clock: Clock) -> None:
        self.database = database
        self.jobs = jobs
        self.arrivals = arrivals
        self.clock = clock
        self._catalog = catalog

    async def get(self, asset_id: str) -> Film | None:
        """One film; None when there is none."""
        async with self.database.read() as connection:
            return await store.get(connection, asset_id)

    async def stand(self, film: Film) -> Standing:
        """Where the film stands now."""
        done: dict[str, tuple[int, int]] = {}
        begun = False
        if film.plan is not None and film.plan_id is not None:
            async with self.database.read() as connection:
                done = await store.counts(connection, film.plan_id)
                opening = film.plan.opening
                first = await store.get_chunk(connection, film.plan_id, opening, 0) if opening is not None else None
            begun = opening is None or (first is not None and first.error_code is None)
        return standing.stand(film, done, begun=begun)

    async def tell(self, asset_id: str) -> None:
        """Report where the film stands to the catalog. What fails here is made good by `look_after`."""
        film = await self.get(asset_id)
        if film is None:
            return
        now = await self.stand(film)
        try:
            await self._catalog.report(standing.report(film, now))
        except StreamGateError as error:
            structlog.get_logger().warning("the catalog was not told", asset_id=asset_id, reason=error.detail)
            return
        async with self.database.write() as tx:
            await store.reported(tx, asset_id, film.revision, now.final)

    async def watched(self, film: Film) -> None:
        """Somebody watches the film: keep in mind when, and have its ladder made again where it was dropped."""
        now = self.clock.now_ms()
        if film.cold:
            async with self.database.write() as tx:
                if not await store.warm(tx, film.asset_id, now):
                    return
                await self.submit_missing(tx, film)
            await self.tell(film.asset_id)
        elif film.watched_ms < now - int(WATCHED_EVERY_S * 1000):
            async with self.database.write() as tx:
                await store.watched(tx, film.asset_id, now)

    def changed(self, tx: Transaction, asset_id: str) -> None:
        """Wake those who wait for the film, once the transaction is committed."""
        after_commit(tx, lambda: self.arrivals.happened(asset_id))

    async def submit_ingest(self, tx: Transaction, asset_id: str, owner: str | None) -> None:
        """Look at the film (again)."""
        await self.jobs.submit(
            tx,
            INGEST,
            IngestPayload(asset_id=asset_id),
            queue=QUEUE,
            key=f"ingest:{asset_id}",
            priority=INGESTING,
            owner=owner,
            subject=asset_id,
        )

    async def submit_missing(self, tx: Transaction, film: Film) -> int:
        """Submit jobs for everything of the plan that is neither made nor impossible; how many jobs."""
        if film.plan is None or film.plan_id is None:
            return 0
        have = {(name, chunk) for name, chunk, _ in await store.chunk_marks(tx, film.plan_id)}
        count = 0
        for index, chunk in enumerate(film.plan.chunks):
            missing = [
                rendition.name
                for rendition in film.plan.encoded
                if standing.takes_part(rendition, chunk) and (rendition.name, index) not in have
            ]
            for names, priority in _sets(film.plan, index, missing):
                await self.submit_chunk(tx, film, index, names, priority)
                count += 1
        for number in range(film.plan.storyboard.sheets if film.plan.storyboard is not None else 0):
            if (STORYBOARD, number) not in have:
                await self.submit_sheet(tx, film, number, SHEETS)
                count += 1
        return count

    async def submit_sheet(self, tx: Transaction, film: Film, number: int, priority: int) -> str:
        """Submit a sheet of the storyboard; the job's id."""
        return await self.jobs.submit(
            tx,
            SHEET,
            SheetPayload(asset_id=film.asset_id, plan_id=film.plan_id or "", number=number),
            queue=QUEUE,
            key=f"sheet:{film.plan_id}:{number}",
            priority=priority,
            owner=film.owner,
            subject=film.asset_id,
        )

    async def submit_chunk(
        self, tx: Transaction, film: Film, chunk: int, renditions: Iterable[str], priority: int
    ) -> str:
        """Submit a chunk for a set of renditions; the job's id."""
        names = tuple(renditions)
        return await self.jobs.submit(
            tx,
            CHUNK,
            ChunkPayload(asset_id=film.asset_id, plan_id=film.plan_id or "", chunk=chunk, renditions=names),
            queue=QUEUE,
            key=f"chunk:{film.plan_id}:{chunk}:{'+'.join(names)}",
            priority=priority,
            owner=film.owner,
            subject=film.asset_id,
        )

    async def live_chunk_jobs(self, film: Film, chunk: int) -> list[tuple[JobRow, ChunkPayload]]:
        """Jobs of that chunk that are queued or running."""
        found = []
        for state in ("running", "queued"):
            for job in await self.jobs.find(subject=film.asset_id, kind=CHUNK, state=state, limit=10_000):
                payload = msgspec.msgpack.decode(job.payload, type=ChunkPayload)
                if payload.plan_id == film.plan_id and payload.chunk == chunk:
                    found.append((job, payload))
        return found

    async def look_after(self) -> None:
        """Periodic: report what the catalog has not heard, submit again what has no job any more."""
        before = self.clock.now_ms() - int(QUIET_S * 1000)
        async with self.database.read() as connection:
            quiet = await store.unsettled(connection, before, 100)
        for asset_id in quiet:
            film = await self.get(asset_id)
            if film is None:
                continue
            if not film.canceled and film.error is None:
                await self._look_after(film)
            async with self.database.write() as tx:
                await store.touch(tx, asset_id, self.clock.now_ms())
            await self.tell(asset_id)

    async def _look_after(self, film: Film) -> None:
        live = [
            job
            for state in ("queued", "running")
            for job in await self.jobs.find(subject=film.asset_id, state=state, limit=1)
        ]
        if live:
            return
        structlog.get_logger().warning("a film without jobs was taken up again", asset_id=film.asset_id)
        async with self.database.write() as tx:
            if film.plan is None:
                await self.submit_ingest(tx, film.asset_id, film.owner)
            else:
                await self.submit_missing(tx, film)


def _sets(plan: MediaPlan, chunk: int, missing: list[str]) -> list[tuple[tuple[str, ...], int]]:
    """Jobs for what is missing of a chunk: the beginning of the lowest rung (and sound) apart, so that the film starts soon."""
    if not missing:
        return []
    if chunk > 0:
        return [(tuple(missing), REST)]
    lowest = plan.encoded[0].name
    soon = tuple(r.name for r in plan.encoded if r.name in missing and (r.name == lowest or r.kind == "audio"))
    later = tuple(name for name in missing if name not in soon)
    return [(names, priority) for names, priority in ((soon, BEGINNING), (later, FIRST)) if names]
