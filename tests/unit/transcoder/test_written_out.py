"""A film that is written out while it arrives: what counts is stored before it counts, and what does not count does not stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.metadata import MediaReport
from streamgate.contracts.upload import GrowingPayload, GrowingSource, Source, SourcePart
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import NotFound
from streamgate.media.model import Grown, LadderSettings, Limits, remuxed_file
from streamgate.packaging.indexes import divided
from streamgate.plugins.transcoder import growing, planned, sentahead, standing, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.films import Films
from streamgate.plugins.transcoder.growing import GrowingFilms
from streamgate.plugins.transcoder.scans import Scans
from streamgate.plugins.transcoder.settings import TranscoderSettings
from streamgate.plugins.transcoder.store import Ahead
from streamgate.runtime.database import Database, Transaction
from streamgate.runtime.jobs import Jobs
from tests.support.indexes import keys, made_up, read
from tests.unit.transcoder.test_standing import film

ASSET = "ast_1"
PIECE = b"samples of a look" * 100


class World:
    """An upload of which all but the last byte is there, looks at it as a test wants them, and what they are told."""

    def __init__(self, films: Films, folder: Path) -> None:
        self.films = films
        self.blobs = LocalBlobStore(folder / "objects")
        self.befores: list[Grown] = []
        self.counts: list[int] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.tail: SourcePart | None = None
        self._scratch = folder / "scratch"

    async def growing(self, _asset_id: str) -> GrowingSource:
        if not self.counts:
            raise NotFound("No upload of this film runs.")
        return GrowingSource(asset_id=ASSET, size=10_000, parts=(SourcePart("uploads/upl_1/0", 9_999),), tail=self.tail)

    async def send_ahead(self, name: str, data: bytes) -> None:
        """The sender says that the film ends so."""
        self.tail = SourcePart(f"uploads/upl_1/{name}", len(data))
        await self.blobs.put(self.tail.key, data)

    async def look(self, _source: object, *, before: Grown, folder: Path, **_: object) -> Grown:
        self.befores.append(before)
        count = self.counts.pop(0)
        (folder / remuxed_file(0)).write_bytes(PIECE)
        plan = film(count + 2).plan
        assert plan is not None
        waiting = self.meanwhile()
        if asyncio.iscoroutine(waiting):
            await waiting
        return Grown(
            plan=replace(plan, index=made_up(count)),
            count=count,
            wanted=0 if self.counts else 20_000,
            looked_at=0,
            mark=b"%8d" % count,
            state=b"state %d" % count,
            size=before.size + len(PIECE),
            written=(len(PIECE),),
        )

    async def follow(self, *counts: int) -> None:
        """Follow the upload while looks at it find so many segments; it ends, or pauses, after the last of them."""
        self.counts = list(counts)
        handler = GrowingFilms(
            self.films,
            self,  # type: ignore[arg-type]
            self.blobs,
            self,  # type: ignore[arg-type]
            LadderSettings(passthrough=True),
            Limits(),
            TranscoderSettings(),
            self._scratch,
            asyncio.Event(),
            Scans(),
        )
        await handler.follow(_Attempt())  # type: ignore[arg-type]
        assert list(self._scratch.iterdir()) == []

    async def growth(self) -> store.Growth:
        found = await self.films.get(ASSET)
        assert found is not None
        assert found.growth is not None
        return found.growth

    async def keys(self) -> set[str]:
        return {info.key async for info in self.blobs.list("assets/")}

    async def end(self) -> None:
        """The last byte comes."""
        async with self.films.database.write() as tx:
            await store.open_film(tx, ASSET, "admin", 1)
            await store.change(tx, ASSET, 2, growing=False)


class _Attempt:
    """A job that is ours."""

    job = SimpleNamespace(id="job_1", attempt=1, owner="admin")

    def payload(self, _kind: object) -> GrowingPayload:
        return GrowingPayload(asset_id=ASSET)

    async def fence(self, _tx: Transaction) -> None:
        pass


class _Catalog:
    async def report(self, _report: MediaReport) -> None:
        pass


@pytest.fixture
async def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(growing, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(growing, "BETWEEN_S", 0.0)
    async with MemoryBus() as bus:
        clock = SystemClock()
        jobs = Jobs(database, bus, clock)
        yield World(
            Films(database=database, jobs=jobs, catalog=_Catalog(), arrivals=Arrivals(), clock=clock),  # type: ignore[arg-type]
            tmp_path,
        )


async def test_each_look_goes_on_from_the_last_also_after_a_restart(world: World) -> None:
    await world.follow(1, 2)
    await world.follow(3)
    assert [(before.state, before.size) for before in world.befores] == [
        (b"", 0),
        (b"state 1", len(PIECE)),
        (b"state 2", 2 * len(PIECE)),
    ]
    growth = await world.growth()
    assert [await world.blobs.read(part.key) for part in growth.parts] == [PIECE] * 3
    assert (growth.count, growth.size, growth.state_key is not None) == (3, 3 * len(PIECE), True)
    assert await world.blobs.read(growth.state_key or "") == b"state 3"
    assert await read(world.blobs, divided(growth.indexes[0], made_up(3))) == made_up(3)
    others = {key for key in await world.keys() if "init.mp4" not in key}
    indexes = {key for index in growth.indexes for key in keys(divided(index, made_up()))}
    assert others == {*indexes, growth.state_key, *(part.key for part in growth.parts)}


async def test_what_is_written_when_the_upload_ends_meanwhile_does_not_stay(world: World) -> None:
    world.meanwhile = world.end
    await world.follow(1)
    assert await world.keys() == set()


async def test_what_counts_stays_when_a_later_look_does_not_count(world: World) -> None:
    await world.follow(1)
    before = await world.keys()
    world.meanwhile = world.end
    await world.follow(2)
    assert await world.keys() == before
    assert (await world.growth()).count == 1


async def test_what_was_listed_by_one_index_does_not_go_on_by_another(world: World) -> None:
    await world.send_ahead("index-1", b"the end")
    await world.follow(1)
    assert (await world.growth()).ahead == Ahead(7, sha256(b"the end").digest())
    await world.send_ahead("index-2", b"another")
    await world.follow(2)
    assert (await world.growth()).count == 1
    await world.send_ahead("index-3", b"the end")
    await world.follow(3)
    assert (await world.growth()).count == 3


async def test_what_was_sent_ahead_is_compared_with_what_the_film_ends_with(world: World) -> None:
    parts = []
    for number, data in enumerate((b"all of the ", b"film, an", b"d the end")):
        parts.append(SourcePart(f"uploads/upl_1/{number}", len(data)))
        await world.blobs.put(parts[-1].key, data)
    source = Source(asset_id=ASSET, size=sum(part.length for part in parts), parts=tuple(parts))
    whole = b"all of the film, and the end"
    for end in (b"end", b"and the end", whole):
        assert await sentahead.is_the_end(world.blobs, source, Ahead(len(end), sha256(end).digest()))
    for other in (b"enD", b"film", b"more than " + whole):
        assert not await sentahead.is_the_end(world.blobs, source, Ahead(len(other), sha256(other).digest()))


async def test_the_rest_of_an_upload_keeps_its_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.follow(1)
    before = await world.keys()

    async def free() -> int:
        return growing.LEFT_FREE + len(PIECE)

    monkeypatch.setattr(world.blobs, "free_bytes", free)
    await world.follow(2)
    assert await world.keys() == before
    assert (await world.growth()).count == 1


async def test_where_the_last_state_is_gone_nothing_more_is_listed(world: World) -> None:
    await world.follow(1)
    await world.blobs.delete((await world.growth()).state_key or "")
    await world.follow(2)
    assert len(world.befores) == 1
    assert (await world.growth()).count == 1


async def test_a_plan_that_goes_on_keeps_the_parts_and_the_rest_goes(world: World, tmp_path: Path) -> None:
    await world.follow(1, 2)
    known = await world.growth()
    (tmp_path / remuxed_file(0)).write_bytes(b"the end")
    plan = film(4).plan
    assert plan is not None
    goes_on = replace(plan, index=made_up(), remuxed=(7,), remuxed_before=known.size)
    index = planned.IndexObjects(world.blobs, ASSET, known.plan_id)
    kept = await planned.kept(world.blobs, ASSET, known.plan_id, goes_on, known.parts, tmp_path, index)
    assert kept.parts[:-1] == known.parts
    assert await world.blobs.read(kept.parts[-1].key) == b"the end"
    stray = standing.remuxed_key(ASSET, known.plan_id, "7-stray")
    await world.blobs.put(stray, b"killed")
    await planned.forget_strays(world.blobs, ASSET, known.plan_id, kept.parts)
    await world.blobs.delete_prefix(planned.left_behind(ASSET, known.plan_id, known))
    left = {key for key in await world.keys() if "init.mp4" not in key}
    assert index.kept is not None
    assert left == keys(index.kept) | {part.key for part in kept.parts}
    await world.blobs.delete_prefix(planned.left_behind(ASSET, "pln_other", known))
    assert await world.keys() == set()


def test_a_plan_agrees_that_changes_nothing_that_was_listed() -> None:
    begun, whole = film(5).plan, film(9).plan
    assert begun is not None
    assert whole is not None
    known = store.Growth(plan_id="pln_1", plan=begun, size=1, indexes=("key",), count=3)
    assert standing.agrees(known, whole, 3)
    assert not standing.agrees(known, whole, 2)
    first = whole.renditions[0]
    for other in (replace(first, init=b"other"), replace(first, boundaries=(0, 1, *first.boundaries[2:]))):
        assert not standing.agrees(known, replace(whole, renditions=(other, *whole.renditions[1:])), 3)
    assert not standing.agrees(known, replace(whole, renditions=whole.renditions[1:]), 3)
    assert standing.agrees(known, replace(whole, renditions=(replace(first, name="more"), *whole.renditions)), 3)
