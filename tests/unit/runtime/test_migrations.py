"""The migrations make exactly the tables that the code uses, and take them away again."""

from __future__ import annotations

import sqlite3
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, create_engine, inspect
from sqlalchemy.ext.asyncio import create_async_engine

import streamgate
from streamgate.domain.errors import ConfigurationError
from streamgate.runtime.migrate import current, downgrade, folder, head, migrate, pending
from tests.support.postgres import Postgres


def every_metadata() -> list[MetaData]:
    """The MetaData of every ``tables`` module of the package."""
    names = [m.name for m in walk_packages(streamgate.__path__, "streamgate.") if m.name.endswith(".tables")]
    return [import_module(name).metadata for name in names]


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def schema(path: Path) -> dict[str, str]:
    """Everything that is in the file, by name, as SQL."""
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def differences(connection: Connection, metadata: list[MetaData]) -> list[Any]:
    def known(_object: Any, name: str | None, kind: str, _reflected: bool, _to: Any) -> bool:
        return not (kind == "table" and name == "alembic_version")

    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True, "include_object": known}
    )
    return list(compare_metadata(context, metadata))  # type: ignore[arg-type]


def test_the_migrated_tables_are_those_of_the_code(migrated: Path) -> None:
    metadata = every_metadata()
    assert "jobs" in {name for m in metadata for name in m.tables}
    with create_engine(f"sqlite:///{migrated}").connect() as connection:
        assert differences(connection, metadata) == []
        for m in metadata:
            for table in m.tables.values():
                made = {index["name"] for index in inspect(connection).get_indexes(table.name)}
                assert {index.name for index in table.indexes} <= made


def test_no_two_owners_have_a_table_of_the_same_name() -> None:
    names = [name for metadata in every_metadata() for name in metadata.tables]
    assert len(names) == len(set(names))


def test_a_difference_would_be_found(migrated: Path) -> None:
    import_module("streamgate.runtime.tables")
    with create_engine(f"sqlite:///{migrated}").connect() as connection:
        assert differences(connection, [MetaData()])


async def test_down_to_nothing_and_up_again_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert await pending(url_of(path))
    await migrate(url_of(path))
    first = schema(path)
    assert (await current(url_of(path)), await pending(url_of(path))) == (head(), False)
    await downgrade(url_of(path), "base")
    assert schema(path).keys() == {"alembic_version", "sqlite_autoindex_alembic_version_1"} & schema(path).keys()
    assert await pending(url_of(path))
    await migrate(url_of(path))
    assert schema(path) == first


async def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await migrate(url_of(path))
    first = schema(path)
    await migrate(url_of(path))
    assert schema(path) == first


async def test_a_migration_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE outbox (x INTEGER)")
    with pytest.raises(ConfigurationError):
        await migrate(url_of(path))
    assert "jobs" not in schema(path), "the statements before the failing one must not be kept"
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE outbox")
    await migrate(url_of(path))
    assert "jobs" in schema(path)


def test_the_history_is_one_line_of_numbered_files() -> None:
    names = sorted(path.name for path in (folder() / "versions").glob("*.py"))
    numbers = [name.partition("_")[0] for name in names]
    assert numbers == [f"{n:04}" for n in range(1, len(names) + 1)]


async def test_postgresql_gets_the_same_tables_and_loses_them_again(postgresql: tuple[Postgres, str]) -> None:
    server, _ = postgresql
    name = server.create()
    url = server.url(name)

    async def look(work: Any) -> Any:
        engine = create_async_engine(url)
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    metadata = every_metadata()
    try:
        assert await pending(url)
        await migrate(url)
        assert not await pending(url)
        assert await look(lambda connection: differences(connection, metadata)) == []
        await downgrade(url, "base")
        assert await look(lambda connection: inspect(connection).get_table_names()) == ["alembic_version"]
        await migrate(url)
        assert await current(url) == head()
    finally:
        server.drop(name)
