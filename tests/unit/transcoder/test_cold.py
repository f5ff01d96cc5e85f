"""Which ladders a sweep drops: by the days of the film, else by those of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.chain_none import NoChains
from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.metadata import AssetChanges, Catalog, NewAsset
from streamgate.domain.identity import Caller, Prefix, Role, new_id
from streamgate.plugins.metadata.service import CatalogService
from streamgate.plugins.metadata.settings import MetadataSettings
from streamgate.plugins.transcoder import cold, store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.cold import ColdLadders
from streamgate.plugins.transcoder.films import Films
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from tests.support.access import access, site
from tests.support.clock import FakeClock
from tests.unit.transcoder.test_standing import film

OWNER = Caller(account="eip155:1:0x" + "aa" * 20, role=Role.CREATOR)
DAY_S = 86_400


class Library:
    """Films that are encoded and were watched when they were made, and sweeps over them."""

    def __init__(self, database: Database, clock: FakeClock, folder: Path) -> None:
        bus = MemoryBus()
        self._outbox, jobs = Outbox(database, bus, clock), Jobs(database, bus, clock)
        self._blobs = LocalBlobStore(folder / "objects")
        self._clock = clock
        self._database = database
        self.catalog: Catalog = CatalogService(
            settings=MetadataSettings(),
            database=database,
            outbox=self._outbox,
            jobs=jobs,
            access=access(database, clock, NoChains(), folder),
            blobs=self._blobs,
            site=site(folder),
            clock=clock,
        )
        self._films = Films(database=database, jobs=jobs, catalog=self.catalog, arrivals=Arrivals(), clock=clock)

    async def add(self, days: float | None = None) -> str:
        """A film that is ready and warm, with days of its own or not; its id."""
        asset_id = (await self.catalog.create(OWNER, NewAsset(title="Film"))).id
        if days is not None:
            await self.catalog.update(OWNER, asset_id, AssetChanges(cold_days=days))
        plan, plan_id, now = film(1, 1).plan, new_id(Prefix.PLAN), self._clock.now_ms()
        assert plan is not None
        async with self._database.write() as tx:
            await store.open_film(tx, asset_id, OWNER.account, now)
            await store.insert_plan(tx, asset_id, plan_id, plan, now)
            for rendition in plan.renditions:
                await store.add_chunk(
                    tx, asset_id=asset_id, plan_id=plan_id, rendition=rendition.name, chunk=0, now_ms=now, prefix="p/"
                )
        await self._films.tell(asset_id)
        return asset_id

    async def sweep(self, days: float | None) -> None:
        """Sweep with these days as the server's setting."""
        await ColdLadders(
            films=self._films, catalog=self.catalog, blobs=self._blobs, outbox=self._outbox, days=days
        ).sweep()

    async def cold(self, asset_id: str) -> bool:
        """Whether the film's ladder was dropped."""
        found = await self._films.get(asset_id)
        assert found is not None
        return found.cold


@pytest.fixture
def library(database: Database, clock: FakeClock, tmp_path: Path) -> Library:
    return Library(database, clock, tmp_path)


@pytest.mark.parametrize(
    ("own", "servers", "dropped"),
    [
        (None, None, False),
        (None, 9, True),
        (None, 11, False),
        (9, None, True),
        (11, None, False),
        (0, 9, False),
        (11, 9, False),
        (9, 11, True),
    ],
)
async def test_the_films_days_go_before_the_servers(
    library: Library, clock: FakeClock, own: float | None, servers: float | None, dropped: bool
) -> None:
    asset_id = await library.add(own)
    clock.advance(10 * DAY_S)
    await library.sweep(servers)
    assert await library.cold(asset_id) is dropped


async def test_films_that_stay_do_not_keep_a_sweep_from_the_others(
    library: Library, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "FILMS_AT_A_TIME", 2)
    kept = [await library.add(0) for _ in range(5)]
    clock.advance(1)
    dropped = [await library.add(days) for days in (None, 5, None, None, 5)]
    clock.advance(10 * DAY_S)
    await library.sweep(9)
    assert [await library.cold(asset_id) for asset_id in kept + dropped] == [False] * 5 + [True] * 5
