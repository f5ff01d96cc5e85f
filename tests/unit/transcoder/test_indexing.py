"""The rest of an index is stored after the film plays: by whoever planned it, or by planning the film anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.domain.clock import SystemClock
from streamgate.packaging.indexes import Divided, divided
from streamgate.plugins.transcoder import films as names
from streamgate.plugins.transcoder import indexing, standing, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.films import Films
from streamgate.plugins.transcoder.indexing import Indexing
from streamgate.plugins.transcoder.objects import put_all
from streamgate.runtime import jobstore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Attempt, Jobs, Snooze
from tests.support.indexes import keys, made_up
from tests.unit.transcoder.test_spreading import plan

ASSET, PLAN = "ast_1", "pln_1"
INDEX = divided(standing.index_key(ASSET, PLAN), made_up(1000, samples=150, tracks=3))
SMALL = divided(standing.index_key(ASSET, PLAN), made_up(10))


class World:
    """A film that plays, of whose index the opening is stored."""

    def __init__(self, films: Films, folder: Path) -> None:
        self.films = films
        self.blobs = LocalBlobStore(folder)
        self.indexing = Indexing(films, self.blobs)

    async def planned(self, index: Divided) -> None:
        await put_all(self.blobs, index.opening())
        async with self.films.database.write() as tx:
            await store.open_film(tx, ASSET, "admin", 1)
            await store.insert_plan(tx, ASSET, PLAN, replace(plan(3), parts=()), 1)
            await self.indexing.submit(tx, ASSET, "admin", PLAN, index)

    async def kinds(self) -> set[str]:
        return {job.kind for job in await self.films.jobs.find(subject=ASSET, state="queued")}

    async def attempt(self) -> Attempt:
        """The job that looks after the index, once it is due."""
        async with self.films.database.write() as tx:
            job = await jobstore.claim(
                tx, 1 << 60, 60_000, queue=names.QUEUE, kinds=(indexing.INDEX,), worker="w", max_priority=None
            )
        assert job is not None
        return Attempt(job, self.films.database, SystemClock())

    async def keys(self) -> set[str]:
        return {info.key async for info in self.blobs.list(f"assets/{ASSET}/")}


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with MemoryBus() as bus:
        clock, unused = SystemClock(), None
        jobs, catalog = Jobs(database, bus, clock), unused
        arguments: dict[str, Any] = {"catalog": catalog, "arrivals": Arrivals(), "clock": clock}
        yield World(Films(database=database, jobs=jobs, **arguments), tmp_path / "objects")


async def test_the_rest_of_an_index_is_stored_and_found_there(world: World) -> None:
    await world.planned(INDEX)
    assert await world.keys() < keys(INDEX)
    await world.indexing.finish(ASSET, PLAN, INDEX)
    assert await world.keys() == keys(INDEX)
    await world.indexing.look(await world.attempt())
    assert await world.kinds() == set()


async def test_an_index_that_is_stored_before_the_film_plays_has_no_job(world: World) -> None:
    await world.planned(SMALL)
    assert await world.kinds() == set()
    assert await world.keys() == keys(SMALL)


async def test_a_film_whose_index_stayed_incomplete_is_planned_anew_and_looked_after_until_then(world: World) -> None:
    await world.planned(INDEX)
    attempt = await world.attempt()
    for _ in range(2):
        with pytest.raises(Snooze):
            await world.indexing.look(attempt)
        assert await world.kinds() == {names.INGEST}
    async with world.films.database.write() as tx:
        await store.insert_plan(tx, ASSET, "pln_2", plan(3), 2)
    await world.indexing.look(attempt)


async def test_a_film_that_was_deleted_meanwhile_leaves_nothing_behind(world: World) -> None:
    await world.planned(INDEX)
    async with world.films.database.write() as tx:
        await store.drop_film(tx, ASSET)
    await world.blobs.delete_prefix(f"assets/{ASSET}/")
    await world.indexing.finish(ASSET, PLAN, INDEX)
    assert await world.keys() == set()
    await world.indexing.look(await world.attempt())
    assert await world.kinds() == set()
