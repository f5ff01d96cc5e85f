"""A film's jobs come in two steps: its beginning at once, the rest by a job that may be run, stopped and repeated at any point."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.clock import SystemClock
from streamgate.media.cuts import runs
from streamgate.media.model import MediaPlan
from streamgate.plugins.transcoder import films as names
from streamgate.plugins.transcoder import store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.films import ChunkPayload, Films
from streamgate.plugins.transcoder.store import Film
from streamgate.runtime import jobstore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Attempt, JobRow, Jobs, LeaseLost
from tests.unit.transcoder.test_standing import rendition

ASSET, PLAN = "ast_1", "pln_1"
SEGMENTS = 4000


def plan(count: int = SEGMENTS, **changes: Any) -> MediaPlan:
    values: dict[str, Any] = {
        "tracks": (),
        "container": "mp4",
        "duration": 4.0 * count,
        "width": 2,
        "height": 2,
        "renditions": (rendition("240p", count), rendition("360p", count), rendition("audio-1", count, "audio")),
        "chunks": runs(count, 3),
        "recipe": b"",
    }
    return MediaPlan(**(values | changes))


@pytest.fixture
async def jobs(database: Database) -> AsyncIterator[Jobs]:
    async with MemoryBus() as bus:
        yield Jobs(database, bus, SystemClock())


@pytest.fixture
def films(jobs: Jobs) -> Films:
    unused: Any = None
    return Films(database=jobs.database, jobs=jobs, catalog=unused, arrivals=Arrivals(), clock=SystemClock())


async def planned(films: Films, made: MediaPlan) -> Film:
    """A film with that plan, whose jobs are submitted as after planning."""
    async with films.database.write() as tx:
        await store.open_film(tx, ASSET, "admin", 1)
        await store.insert_plan(tx, ASSET, PLAN, made, 1)
        film = await store.get(tx, ASSET)
        assert film is not None
        await films.submit_missing(tx, film)
    return film


async def live(films: Films) -> list[JobRow]:
    return [
        job
        for state in ("queued", "running")
        for job in await films.jobs.find(subject=ASSET, state=state, limit=10_000)
    ]


async def claimed(films: Films) -> Attempt:
    """The spread job in the hands of a worker."""
    async with films.database.write() as tx:
        job = await jobstore.claim(tx, 1 << 60, 60_000, queue=names.QUEUE, kinds=(names.SPREAD,), worker="w")
    assert job is not None
    return Attempt(job, films.database, SystemClock())


def work(found: list[JobRow]) -> list[tuple[int, tuple[str, ...], int]]:
    """(chunk, renditions, priority) of the chunk jobs."""
    payloads = [
        (msgspec.msgpack.decode(job.payload, type=ChunkPayload), job) for job in found if job.kind == names.CHUNK
    ]
    return sorted((payload.chunk, payload.renditions, job.priority) for payload, job in payloads)


async def test_planning_submits_as_many_jobs_for_hours_as_for_a_minute(films: Films) -> None:
    await planned(films, plan())
    found = await live(films)
    assert work(found) == [(0, ("240p", "audio-1"), names.BEGINNING), (0, ("360p",), names.FIRST)]
    assert [job.kind for job in found if job.kind != names.CHUNK] == [names.SPREAD]


async def test_what_a_film_does_not_begin_with_is_not_urgent(films: Films) -> None:
    source = msgspec.structs.replace(rendition("source", 9), passthrough=0, rung=None)
    sound = msgspec.structs.replace(rendition("audio-1", 9, "audio"), passthrough=1, rung=None)
    await planned(films, plan(9, renditions=(source, rendition("240p", 9), sound)))
    assert work(await live(films)) == [(0, ("240p",), names.FIRST)]


async def test_sound_that_is_encoded_beside_passing_video_comes_first(films: Films) -> None:
    source = msgspec.structs.replace(rendition("source", 9), passthrough=0, rung=None)
    sound = rendition("audio-1", 9, "audio")
    await planned(films, plan(9, renditions=(source, rendition("240p", 9), sound)))
    assert work(await live(films)) == [(0, ("240p",), names.FIRST), (0, ("audio-1",), names.BEGINNING)]


async def test_the_rest_is_spread_once_however_often_that_is_done(films: Films) -> None:
    film = await planned(films, plan())
    assert film.plan is not None
    attempt = await claimed(films)
    await films.spread(attempt)
    first = work(await live(films))
    assert [chunk for chunk, *_ in first] == [0, *range(len(film.plan.chunks))]
    assert {(sets, priority) for chunk, sets, priority in first if chunk} == {(("240p", "360p", "audio-1"), names.REST)}
    await films.spread(attempt)
    assert work(await live(films)) == first


async def test_what_is_made_is_not_spread_and_what_is_asked_for_stays_urgent(films: Films) -> None:
    film = await planned(films, plan(30))
    async with films.database.write() as tx:
        await films.submit_chunk(tx, film, 5, ("240p",), names.REQUESTED)
        await films.submit_chunk(tx, film, 6, ("240p", "360p", "audio-1"), names.REQUESTED)
        for name in ("240p", "360p", "audio-1"):
            await store.add_chunk(tx, asset_id=ASSET, plan_id=PLAN, rendition=name, chunk=7, now_ms=1, prefix="p/")
        await store.add_chunk(
            tx, asset_id=ASSET, plan_id=PLAN, rendition="360p", chunk=8, now_ms=1, error_code="timeout"
        )
    await films.spread(await claimed(films))
    found = work(await live(films))
    assert [(sets, priority) for chunk, sets, priority in found if chunk in {5, 6, 7, 8}] == [
        (("240p",), names.REQUESTED),
        (("240p", "360p", "audio-1"), names.REST),
        (("240p", "360p", "audio-1"), names.REQUESTED),
        (("240p", "audio-1"), names.REST),
    ]
    assert [payload.chunk for _, payload in await films.live_chunk_jobs(film, 5)] == [5, 5]
    assert [payload.chunk for _, payload in await films.live_chunk_jobs(film, 1)] == [1]


@pytest.mark.parametrize("change", [{"canceled": True}, {"cold": True}, {"error_code": "timeout", "error_detail": ""}])
async def test_nothing_is_spread_of_a_film_that_is_not_to_be_made(films: Films, change: dict[str, Any]) -> None:
    await planned(films, plan(30))
    attempt = await claimed(films)
    async with films.database.write() as tx:
        await store.change(tx, ASSET, 2, **change)
    before = work(await live(films))
    await films.spread(attempt)
    assert work(await live(films)) == before


async def test_nothing_is_spread_of_a_film_that_is_planned_anew_or_gone(films: Films) -> None:
    await planned(films, plan(30))
    attempt = await claimed(films)
    async with films.database.write() as tx:
        await store.insert_plan(tx, ASSET, "pln_2", plan(30), 2)
    before = work(await live(films))
    await films.spread(attempt)
    async with films.database.write() as tx:
        await store.drop_film(tx, ASSET)
    await films.spread(attempt)
    assert work(await live(films)) == before


async def test_a_worker_that_lost_its_lease_spreads_nothing(films: Films) -> None:
    await planned(films, plan(30))
    attempt = await claimed(films)
    async with films.database.write() as tx:
        await jobstore.release_all(tx, 2)
    before = work(await live(films))
    with pytest.raises(LeaseLost):
        await films.spread(attempt)
    assert work(await live(films)) == before


async def test_a_film_that_was_stopped_and_started_again_has_a_spread_job(films: Films) -> None:
    film = await planned(films, plan(30))
    await claimed(films)
    async with films.database.write() as tx:
        await films.jobs.cancel_subject(tx, ASSET, names.MADE_BY)
    async with films.database.write() as tx:
        await films.submit_missing(tx, film)
    await films.spread(await claimed(films))
    assert len(work(await live(films))) == 1 + len(runs(30, 3))
