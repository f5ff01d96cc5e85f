"""A segment is urgent for as long as somebody waits for it, and its chunk is made by itself; what is left behind gives way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain import deadline
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import DeadlineExceeded
from streamgate.media.cuts import runs
from streamgate.media.model import MediaPlan
from streamgate.plugins.transcoder import films as names
from streamgate.plugins.transcoder import store, wishes
from streamgate.plugins.transcoder.arrivals import LOOK_EVERY_S, Arrivals
from streamgate.plugins.transcoder.films import ChunkPayload, Films
from streamgate.plugins.transcoder.service import TranscodingService
from streamgate.plugins.transcoder.store import Film
from streamgate.runtime import jobstore, tables
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Attempt, JobRow, Jobs
from tests.unit.transcoder.test_standing import rendition

ASSET, PLAN = "ast_1", "pln_1"
COUNT = 31


@pytest.fixture
async def films(database: Database) -> AsyncIterator[Films]:
    unused: Any = None
    async with MemoryBus() as bus:
        jobs = Jobs(database, bus, SystemClock())
        yield Films(database=database, jobs=jobs, catalog=unused, arrivals=Arrivals(), clock=SystemClock())


@pytest.fixture
async def film(films: Films) -> Film:
    """A film of chunks of one segment, encoded in runs of three, whose jobs are all submitted."""
    plan = MediaPlan(
        tracks=(),
        container="mp4",
        duration=4.0 * COUNT,
        width=2,
        height=2,
        renditions=(rendition("240p", COUNT), rendition("360p", COUNT)),
        chunks=tuple((n, n + 1) for n in range(COUNT)),
        runs=runs(COUNT, 3),
        recipe=b"",
    )
    async with films.database.write() as tx:
        await store.open_film(tx, ASSET, "admin", 1)
        await store.insert_plan(tx, ASSET, PLAN, plan, 1)
        film = await store.get(tx, ASSET)
        assert film is not None
        await films.submit_missing(tx, film)
    job = await claimed(films, names.SPREAD)
    await films.spread(Attempt(job, films.database, SystemClock()))
    return film


@pytest.fixture
def service(films: Films) -> TranscodingService:
    unused: Any = None
    return TranscodingService(
        films=films, catalog=unused, blobs=unused, arrivals=films.arrivals, draining=asyncio.Event()
    )


async def claimed(films: Films, kind: str = names.CHUNK) -> JobRow:
    """The most urgent job, in the hands of a worker."""
    async with films.database.write() as tx:
        job = await jobstore.claim(tx, 1 << 60, 60_000, queue=names.QUEUE, kinds=(kind,), worker="w")
    assert job is not None
    return job


async def of(films: Films, film: Film, chunk: int) -> list[tuple[range, tuple[str, ...], int]]:
    """The live jobs that make a chunk: (chunks, renditions, priority), most urgent first."""
    found = await films.live_chunk_jobs(film, chunk)
    return sorted(
        ((payload.chunks, payload.renditions, job.priority) for job, payload in found), key=lambda job: job[2]
    )


async def asked(films: Films, film: Film, chunk: int, priority: int) -> None:
    """Wait until a chunk is as urgent as that in 240p."""
    async with asyncio.timeout(5):
        while (range(chunk, chunk + 1), ("240p",), priority) not in await of(films, film, chunk):
            await asyncio.sleep(0.005)


REST_OF_RUN = (range(4, 7), ("240p", "360p"), names.REST)


async def test_what_is_asked_for_is_made_by_itself_beside_its_run(
    films: Films, film: Film, service: TranscodingService
) -> None:
    assert await of(films, film, 5) == [REST_OF_RUN]
    waiting = asyncio.create_task(service.ensure(ASSET, "240p", 5))
    await asked(films, film, 5, names.REQUESTED)
    assert await of(films, film, 5) == [(range(5, 6), ("240p",), names.REQUESTED), REST_OF_RUN]
    assert await of(films, film, 4) == [REST_OF_RUN]
    job = await claimed(films)
    assert msgspec.msgpack.decode(job.payload, type=ChunkPayload).chunks == range(5, 6)
    async with films.database.write() as tx:
        await store.add_chunk(
            tx, asset_id=ASSET, plan_id=PLAN, rendition="240p", chunk=5, now_ms=1, prefix="p/", lengths=(7,)
        )
        films.changed(tx, ASSET)
    assert (await waiting).length == 7


async def test_a_wish_is_taken_back_when_the_last_who_waits_leaves(
    films: Films, film: Film, service: TranscodingService
) -> None:
    first, second = (asyncio.create_task(service.ensure(ASSET, "240p", 5)) for _ in range(2))
    await asked(films, film, 5, names.REQUESTED)
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait((first,))
    await asyncio.sleep(0.1)
    await asked(films, film, 5, names.REQUESTED)
    second.cancel()
    await asked(films, film, 5, names.REST)
    third = asyncio.create_task(service.ensure(ASSET, "240p", 5))
    await asked(films, film, 5, names.REQUESTED)
    third.cancel()
    await asked(films, film, 5, names.REST)


async def test_another_process_takes_a_wish_back_only_until_whoever_still_waits_looks_again(
    films: Films, film: Film, service: TranscodingService
) -> None:
    waiting = asyncio.create_task(service.ensure(ASSET, "240p", 5))
    await asked(films, film, 5, names.REQUESTED)
    await films.unwant(film, "240p", 5)
    await asked(films, film, 5, names.REQUESTED)
    waiting.cancel()
    await asked(films, film, 5, names.REST)


async def test_who_ran_out_of_time_asks_again_and_the_work_goes_on(
    films: Films, film: Film, service: TranscodingService
) -> None:
    with pytest.raises(DeadlineExceeded):
        async with deadline.within(0.1):
            await service.ensure(ASSET, "240p", 5)
    await asyncio.sleep(0.1)
    assert (await of(films, film, 5))[0] == (range(5, 6), ("240p",), names.REQUESTED)


async def test_what_a_film_begins_with_stays_urgent(films: Films, film: Film, service: TranscodingService) -> None:
    leaving = asyncio.create_task(service.ensure(ASSET, "240p", 0))
    await asyncio.sleep(0.1)
    leaving.cancel()
    await asyncio.wait((leaving,))
    await asyncio.sleep(0.1)
    assert (await of(films, film, 0))[0][2] <= names.BEGINNING


async def test_work_that_was_left_gives_way_only_to_what_somebody_waits_for(
    films: Films, film: Film, service: TranscodingService
) -> None:
    leaving = asyncio.create_task(service.ensure(ASSET, "240p", 5))
    await asked(films, film, 5, names.REQUESTED)
    async with films.database.write() as tx:
        await tx.execute(tables.jobs.delete().where(tables.jobs.c.priority == names.BEGINNING))
    outranked = asyncio.create_task(films.outranked(await claimed(films)))
    waiting = asyncio.create_task(service.ensure(ASSET, "240p", 20))
    await asked(films, film, 20, names.REQUESTED)
    await asyncio.sleep(0.05)
    assert not outranked.done(), "somebody waits for it"
    leaving.cancel()
    async with asyncio.timeout(wishes.FAREWELL_S):
        await outranked
    waiting.cancel()
    await asked(films, film, 20, names.REST)
    alone = asyncio.create_task(films.outranked(await claimed(films)))
    await asyncio.sleep(0.05)
    assert not alone.done(), "nobody waits for another"
    alone.cancel()


async def test_what_happens_while_somebody_looks_is_not_missed() -> None:
    arrivals = Arrivals()
    with arrivals.listening("film") as ear, arrivals.listening("other") as deaf:
        arrivals.happened("film")
        async with asyncio.timeout(LOOK_EVERY_S / 2):
            await ear.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ear.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await deaf.pause()
