"""The catalog learns where a film stands, also when it was away at the time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.contracts.metadata import MediaReport
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import DeadlineExceeded, NotFound, StreamGateError, Unavailable
from streamgate.plugins.transcoder import store
from streamgate.plugins.transcoder.arrivals import Arrivals
from streamgate.plugins.transcoder.films import Films
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs

ASSET = "ast_1"


class Catalog:
    """Another process, as a test wants it."""

    def __init__(self) -> None:
        self.away: StreamGateError | None = None
        self.asked = 0
        self.told: list[str] = []

    async def report(self, report: MediaReport) -> None:
        self.asked += 1
        if self.away is not None:
            raise self.away
        self.told.append(report.asset_id)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
async def films(database: Database, catalog: Catalog) -> AsyncIterator[Films]:
    async with MemoryBus() as bus:
        jobs, clock = Jobs(database, bus, SystemClock()), SystemClock()
        yield Films(database=database, jobs=jobs, catalog=catalog, arrivals=Arrivals(), clock=clock)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
async def opened(films: Films) -> None:
    async with films.database.write() as tx:
        await store.open_film(tx, ASSET, "admin", 1)


@pytest.mark.parametrize("away", [Unavailable("away"), DeadlineExceeded("silent")])
async def test_a_catalog_that_was_away_is_told_when_it_is_back_and_then_no_more(
    films: Films, catalog: Catalog, away: StreamGateError
) -> None:
    catalog.away = away
    await films.tell(ASSET)
    await films.tell_again()
    assert (catalog.asked, catalog.told) == (2, [])
    catalog.away = None
    await films.tell_again()
    await films.tell_again()
    assert (catalog.asked, catalog.told) == (3, [ASSET])


async def test_a_film_that_is_gone_is_not_told_of_for_ever(films: Films, catalog: Catalog) -> None:
    catalog.away = NotFound("There is no such film.")
    await films.tell(ASSET)
    await films.tell_again()
    assert catalog.asked == 1
    await films.tell("ast_2")
    await films.tell_again()
    assert catalog.asked == 1
