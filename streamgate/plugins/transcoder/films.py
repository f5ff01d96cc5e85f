"""Films and the jobs that make them: what is to be made, by which job, how urgently; and telling the catalog.

A film's jobs are submitted in two steps, so that planning it takes as long for three hours as for a minute: first the jobs of its
first chunk and one more, ``transcoder.spread``, which then submits the rest in batches. A segment that is asked for in between
gets its job by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import structlog

from streamgate.contracts.metadata import Catalog
from streamgate.contracts.upload import IngestPayload
from streamgate.domain.clock import Clock
from streamgate.domain.errors import DeadlineExceeded, StreamGateError, Unavailable
from streamgate.media.model import MediaPlan, PlannedRendition
from streamgate.plugins.transcoder import standing, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.standing import Standing
from streamgate.plugins.transcoder.store import Film
from streamgate.runtime.database import Database, Transaction, after_commit
from streamgate.runtime.jobs import Attempt, Handler, JobRow, Jobs, Wanted

QUEUE = "transcode"
INGEST, CHUNK, POSTER = "transcoder.ingest", "transcoder.chunk", "transcoder.poster"
SHEET = "transcoder.storyboard"
REMOVAL = "transcoder.removal"
SPREAD = "transcoder.spread"
MADE_BY = (INGEST, SPREAD, CHUNK, SHEET)
"""The jobs that make a film, and that end when its owner stops it."""

STORYBOARD = "storyboard"
"""What the rows of the storyboard's sheets call their rendition; no rendition of a film is named so."""

REQUESTED = 0
"""Priority of a chunk that somebody waits for."""

INGESTING = 5
BEGINNING = 10
"""The first chunk of what the film begins with. What is at least this urgent is never stopped for others."""

FIRST = 20
SPREADING = 25
PICTURE = 30
SHEETS = 60
REST = 100

WATCHED_EVERY_S = 3600.0
"""How exactly it is kept when a film was last watched."""

BATCH = 500
"""Jobs that are submitted in one transaction."""

AWAY = (Unavailable, DeadlineExceeded)
"""Why the catalog cannot be told now, and may be a moment later."""

QUIET_S = 60.0
"""A film that is not at its end and to which nothing happened for this long is looked after."""


class ChunkPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a chunk job: what to encode of a plan, from ``chunk`` to before ``end`` (without it: that chunk alone)."""

    asset_id: str
    plan_id: str
    chunk: int
    renditions: tuple[str, ...]
    end: int | None = None

    @property
    def chunks(self) -> range:
        """The chunks."""
        return range(self.chunk, self.chunk + 1 if self.end is None else self.end)

    @property
    def parts(self) -> set[tuple[str, int]]:
        """What it makes, each a chunk of a rendition."""
        return {(name, chunk) for name in self.renditions for chunk in self.chunks}


class SheetPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a storyboard job: one sheet of a plan."""

    asset_id: str
    plan_id: str
    number: int


class SpreadPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the job that submits the jobs of a plan."""

    asset_id: str
    plan_id: str


class Films:
    """The films of this database as their jobs see them."""

    def __init__(self, *, database: Database, jobs: Jobs, catalog: Catalog, arrivals: Arrivals, clock: Clock) -> None:
        self.database = database
        self.jobs = jobs
        self.arrivals = arrivals
        self.clock = clock
        self._catalog = catalog
        self._untold: set[str] = set()

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        return {SPREAD: self.spread}

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
            begun = opening is None or film.plan.begun or (first is not None and first.error_code is None)
        return standing.stand(film, done, begun=begun)

    async def tell(self, asset_id: str) -> None:
        """Report where the film stands to the catalog.

        What fails is made good by `tell_again`, and by `look_after` when this process ends before.
        """
        self._untold.add(asset_id)
        film = await self.get(asset_id)
        if film is not None:
            now = await self.stand(film)
            try:
                await self._catalog.report(standing.report(film, now))
            except StreamGateError as error:
                structlog.get_logger().warning("the catalog was not told", asset_id=asset_id, reason=error.detail)
                change = self._untold.add if isinstance(error, AWAY) else self._untold.discard
                change(asset_id)
                return
            async with self.database.write() as tx:
                await store.reported(tx, asset_id, film.revision, now.final)
        self._untold.discard(asset_id)

    async def tell_again(self) -> None:
        """Periodic: report what could not be reported."""
        for asset_id in tuple(self._untold):
            await self.tell(asset_id)

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

    async def submit_missing(self, tx: Transaction, film: Film) -> None:
        """Have everything of the plan made that is neither made nor impossible: its beginning by jobs that are there at once, the
        rest by those that `spread` submits."""
        if film.plan is None or film.plan_id is None:
            return
        have = {(name, chunk) for name, chunk, _ in await store.chunk_marks(tx, film.plan_id, range(1))}
        for job in _chunk_jobs(film, film.plan, standing.run_of(film.plan, 0), have):
            await self._submit(tx, film, job)
        # Without a key: one that was told to stop may not stand in the way of the next. Two of them do no harm.
        await self.jobs.submit(
            tx,
            SPREAD,
            SpreadPayload(asset_id=film.asset_id, plan_id=film.plan_id),
            queue=QUEUE,
            priority=SPREADING,
            owner=film.owner,
            subject=film.asset_id,
        )

    async def spread(self, attempt: Attempt) -> None:
        """Submit jobs for all of a plan that is neither made nor impossible, unless the film was stopped, dropped or planned anew.

        Safe to run again and beside others: jobs have keys, and one whose chunk is made meanwhile finds nothing to do.
        """
        payload = attempt.payload(SpreadPayload)
        async with self.database.read() as connection:
            film = await store.get(connection, payload.asset_id)
            have = {(name, chunk) for name, chunk, _ in await store.chunk_marks(connection, payload.plan_id)}
        if film is None or film.plan is None or film.plan_id != payload.plan_id:
            return
        wanted = list(_missing_jobs(film, film.plan, have))
        for start in range(0, len(wanted), BATCH):
            async with self.database.write() as tx:
                await attempt.fence(tx)
                if not await store.wanted(tx, payload.asset_id, payload.plan_id):
                    return
                await self.jobs.submit_many(
                    tx, wanted[start : start + BATCH], queue=QUEUE, owner=film.owner, subject=film.asset_id
                )

    async def submit_sheet(self, tx: Transaction, film: Film, number: int, priority: int) -> None:
        """Submit a sheet of the storyboard."""
        await self._submit(tx, film, _sheet_job(film, number, priority))

    async def submit_chunk(
        self, tx: Transaction, film: Film, chunk: int, renditions: Iterable[str], priority: int
    ) -> None:
        """Submit a chunk for a set of renditions."""
        await self._submit(tx, film, _chunk_job(film, range(chunk, chunk + 1), tuple(renditions), priority))

    async def want(self, film: Film, rendition: str, chunk: int) -> None:
        """Have the chunk made for that rendition now, unless a job makes it that somebody waits for already. Safe to repeat.

        One that makes it among others at its leisure is not waited for: it takes several times as long, and stands still meanwhile.
        """
        for job, payload in await self.live_chunk_jobs(film, chunk):
            if rendition in payload.renditions and job.priority <= BEGINNING:
                return
        async with self.database.write() as tx:
            await self.submit_chunk(tx, film, chunk, (rendition,), REQUESTED)

    async def unwant(self, film: Film, rendition: str, chunk: int) -> None:
        """Nobody waits for the chunk in that rendition any more: it is made with the rest, and not before it.

        What a film begins with stays urgent.
        """
        if chunk == 0:
            return
        async with self.database.write() as tx:
            await self.jobs.defer(tx, _chunk_job(film, range(chunk, chunk + 1), (rendition,), REST).key, REST)
            self._stirred(tx)

    async def outranked(self, job: JobRow) -> None:
        """Return when a job that was urgent is not so any more while one that is waits for a slot."""
        with self.arrivals.listening(QUEUE) as ear:
            while True:
                try:
                    if await self.jobs.outranked(job.id, BEGINNING):
                        return
                except StreamGateError as error:
                    structlog.get_logger().warning("the queue cannot be read", reason=error.detail)
                await ear.pause()

    def _stirred(self, tx: Transaction) -> None:
        """Let `outranked` look, once the transaction is committed."""
        after_commit(tx, lambda: self.arrivals.happened(QUEUE))

    async def _submit(self, tx: Transaction, film: Film, job: Wanted) -> None:
        await self.jobs.submit(
            tx,
            job.kind,
            job.payload,
            queue=QUEUE,
            key=job.key,
            priority=job.priority,
            owner=film.owner,
            subject=film.asset_id,
        )
        if job.priority <= BEGINNING:
            self._stirred(tx)

    async def live_chunk_jobs(self, film: Film, chunk: int) -> list[tuple[JobRow, ChunkPayload]]:
        """Jobs that make that chunk and are queued or running, running ones first."""
        return [(job, payload) for job, payload in await self.live_jobs_of_run(film, chunk) if chunk in payload.chunks]

    async def live_jobs_of_run(self, film: Film, chunk: int) -> list[tuple[JobRow, ChunkPayload]]:
        """Jobs that make some of the run that the chunk is of."""
        live = await self.jobs.live(film.asset_id, _chunk_key(film, chunk))
        return [(job, msgspec.msgpack.decode(job.payload, type=ChunkPayload)) for job in live]

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
        if live or film.growing:
            return  # an upload that pauses is taken up again when bytes come
        structlog.get_logger().warning("a film without jobs was taken up again", asset_id=film.asset_id)
        async with self.database.write() as tx:
            if film.plan is None:
                await self.submit_ingest(tx, film.asset_id, film.owner)
            else:
                await self.submit_missing(tx, film)


def _missing_jobs(film: Film, plan: MediaPlan, have: set[tuple[str, int]]) -> Iterator[Wanted]:
    """Jobs for everything of a plan but what there is, as (rendition, chunk)."""
    for run in standing.all_runs(plan):
        yield from _chunk_jobs(film, plan, run, have)
    for number in range(plan.storyboard.sheets if plan.storyboard is not None else 0):
        if (STORYBOARD, number) not in have:
            yield _sheet_job(film, number, SHEETS)


def _chunk_jobs(film: Film, plan: MediaPlan, run: range, have: set[tuple[str, int]]) -> list[Wanted]:
    """Jobs for what is missing of a run: what the film begins with (and sound) apart, so that it starts soon."""
    missing = [
        rendition
        for rendition in plan.encoded
        if any(standing.takes_part(rendition, plan.chunks[n]) and (rendition.name, n) not in have for n in run)
    ]
    sets: tuple[tuple[list[PlannedRendition], int], ...] = ((missing, REST),)
    if 0 in run:
        soon = [r for r in missing if plan.opening is not None and (r.name == plan.opening or r.kind == "audio")]
        sets = ((soon, BEGINNING), ([r for r in missing if r not in soon], FIRST))
    return [_chunk_job(film, run, tuple(r.name for r in some), priority) for some, priority in sets if some]


def _chunk_job(film: Film, chunks: range, names: tuple[str, ...], priority: int) -> Wanted:
    first, end = chunks.start, chunks.stop
    payload = ChunkPayload(asset_id=film.asset_id, plan_id=film.plan_id or "", chunk=first, renditions=names, end=end)
    return Wanted(CHUNK, payload, f"{_chunk_key(film, first)}{first}-{end}:{'+'.join(names)}", priority)


def _chunk_key(film: Film, chunk: int) -> str:
    """What the keys of all jobs begin with that may make this chunk: those of its run share it."""
    run = standing.run_of(film.plan, chunk) if film.plan is not None else range(chunk, chunk + 1)
    return f"chunk:{film.plan_id}:{run.start}:"


def _sheet_job(film: Film, number: int, priority: int) -> Wanted:
    payload = SheetPayload(asset_id=film.asset_id, plan_id=film.plan_id or "", number=number)
    return Wanted(SHEET, payload, f"sheet:{film.plan_id}:{number}", priority)
