"""Fixtures that every test may use."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from streamgate.runtime.database import Database, open_database
from streamgate.runtime.migrate import migrate
from tests.support.chain import Chain, anvil
from tests.support.clock import FakeClock
from tests.support.copies import Copies
from tests.support.postgres import Postgres, postgres
from tests.support.redis import RedisServer, redis_server

# The machine is shared and slow at times; and a run says the same as the one before.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves when it is told to."""
    return FakeClock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    asyncio.run(migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postgres, str]]:
    """A PostgreSQL server, and the name of a database with every table and no row."""
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        template = server.create()
        asyncio.run(migrate(server.url(template)))
        yield server, template


@pytest.fixture(scope="session")
def copies(postgresql: tuple[Postgres, str]) -> Iterator[Copies]:
    """Databases of PostgreSQL with every table and no row."""
    made = Copies(*postgresql)
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server; whoever stops it starts it again."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_empty(redis_running: RedisServer) -> RedisServer:
    """A Redis server that holds nothing."""
    redis_running.empty()
    return redis_running


@pytest.fixture
def embedded_url(migrated: Path, tmp_path: Path) -> str:
    """The URL of an empty SQLite database with every table, for what is only true of it or independent of the engine."""
    path = tmp_path / "test.db"
    shutil.copy(migrated, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database with every table, on both engines."""
    if request.param == "sqlite":
        yield request.getfixturevalue("embedded_url")
        return
    (server, _), copies = request.getfixturevalue("postgresql"), request.getfixturevalue("copies")
    name = copies.take()
    yield server.url(name)
    copies.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with every table."""
    async with open_database(database_url) as database:
        yield database


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    """A real EVM node that mines at once, shared by the tests of this process."""
    with anvil() as started:
        yield started
