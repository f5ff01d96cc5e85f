"""Transactions: one writer, consistent readers, hints after the commit only, driver errors as errors of the tree."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import ConfigurationError, InsufficientStorage, Unavailable
from streamgate.runtime import engines
from streamgate.runtime.database import Database, after_commit, open_database
from streamgate.runtime.health import HealthBoard, reachable, worst


@pytest.fixture
def database_url(embedded_url: str) -> str:
    """These tests are about SQLite."""
    return embedded_url


@pytest.fixture(autouse=True)
async def notes(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(text("CREATE TABLE notes (n INTEGER PRIMARY KEY, body BLOB)"))


async def add(database: Database, n: int) -> None:
    async with database.write() as tx:
        await tx.execute(text("INSERT INTO notes (n) VALUES (:n)"), {"n": n})


async def numbers(database: Database) -> list[int]:
    async with database.read() as connection:
        return [row[0] for row in await connection.execute(text("SELECT n FROM notes ORDER BY n"))]


async def test_writers_take_turns_and_none_is_lost(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(text("INSERT INTO notes VALUES (1, 0)"))

    async def increase() -> None:
        async with database.write() as tx:
            value = (await tx.execute(text("SELECT body FROM notes"))).scalar_one()
            await asyncio.sleep(0.001)
            await tx.execute(text("UPDATE notes SET body = :v"), {"v": value + 1})

    await asyncio.gather(*(increase() for _ in range(40)))
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT body FROM notes"))).scalar() == 40


async def test_two_processes_take_turns_too(database: Database, database_url: str) -> None:
    async with open_database(database_url) as other:
        async with database.write() as tx:
            waiting = asyncio.create_task(add(other, 2))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await tx.execute(text("INSERT INTO notes (n) VALUES (1)"))
        await waiting
        assert await numbers(database) == [1, 2]


async def test_a_reader_sees_one_state_whatever_is_committed_meanwhile(database: Database) -> None:
    async with database.read() as connection:
        count = text("SELECT count(*) FROM notes")
        assert (await connection.execute(count)).scalar() == 0
        await add(database, 1)
        assert (await connection.execute(count)).scalar() == 0
    assert await numbers(database) == [1]


async def test_nothing_of_a_block_that_raises_is_kept(database: Database) -> None:
    with pytest.raises(RuntimeError):  # noqa: PT012 (the transaction is what raises)
        async with database.write() as tx:
            await tx.execute(text("INSERT INTO notes (n) VALUES (1)"))
            raise RuntimeError
    assert await numbers(database) == []


async def test_what_a_reader_writes_is_rolled_back(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(text("INSERT INTO notes (n) VALUES (1)"))
    assert await numbers(database) == []


async def test_hints_are_given_after_the_commit_in_order_and_never_without_it(database: Database) -> None:
    given: list[int] = []
    async with database.write() as tx:
        after_commit(tx, lambda: given.append(1))
        after_commit(tx, lambda: given.append(2))
        await tx.execute(text("INSERT INTO notes (n) VALUES (1)"))
        assert given == []
    assert given == [1, 2]
    with pytest.raises(IntegrityError):  # noqa: PT012 (the transaction is what raises)
        async with database.write() as tx:
            after_commit(tx, lambda: given.append(3))
            await tx.execute(text("INSERT INTO notes (n) VALUES (1)"))
    await add(database, 2)
    assert given == [1, 2]


async def test_a_full_disk_is_insufficient_storage_and_passes(database: Database) -> None:
    async def fill(pages: int) -> None:
        async with database.write() as tx:
            await tx.execute(text(f"PRAGMA max_page_count = {pages}"))
            await tx.execute(text("INSERT INTO notes (body) VALUES (zeroblob(1000000))"))

    with pytest.raises(InsufficientStorage):
        await fill(1)  # SQLite takes the pages that there are instead, so that not one more fits
    assert await numbers(database) == []
    await fill(1 << 20)
    assert len(await numbers(database)) == 1


async def test_a_database_that_is_locked_for_too_long_is_unavailable(database: Database, database_url: str) -> None:
    async with open_database(database_url) as other:
        async with other.write() as tx:
            await tx.execute(text("PRAGMA busy_timeout = 50"))
        async with database.write():
            with pytest.raises(Unavailable):
                await add(other, 1)
        await add(other, 2)
    assert await numbers(database) == [2]


async def test_a_statement_that_is_wrong_is_no_fault_of_the_database(database: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        async with database.write() as tx:
            await tx.execute(text("INSERT INTO missing VALUES (1)"))


async def test_waiting_too_long_for_a_turn_is_unavailable(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TURN_S", 0.05)
    async with open_database(database_url) as database, database.write():
        with pytest.raises(Unavailable):
            await add(database, 1)


async def test_writers_that_are_cancelled_at_any_moment_leave_no_lock_and_no_half_write(
    database: Database, database_url: str
) -> None:
    async def pair(n: int) -> None:
        async with database.write() as tx:
            await tx.execute(text("INSERT INTO notes (n) VALUES (:n)"), {"n": n})
            await tx.execute(text("INSERT INTO notes (n) VALUES (:n)"), {"n": -n})

    async def cancelled(n: int) -> None:
        task = asyncio.create_task(pair(n))
        await asyncio.sleep(random.uniform(0, 0.02))
        task.cancel()
        await asyncio.wait([task])

    async with asyncio.timeout(20):
        for start in range(1, 200, 5):
            await asyncio.gather(*(cancelled(n) for n in range(start, start + 5)))
    async with asyncio.timeout(1), open_database(database_url) as other:
        await add(database, 1000)
        await add(other, 1001)
    found = set(await numbers(database)) - {1000, 1001}
    assert found == {-n for n in found}


async def test_health_is_what_a_statement_says(tmp_path: Path, database: Database) -> None:
    assert await database.healthy()
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'missing' / 'x.db'}") as away:
        assert not await away.healthy()
        board = HealthBoard("monolith", "1", SystemClock())
        board.add("database", reachable(away))
        board.add("another", reachable(database))
        checks = await board.checks()
        assert (checks["database"].status, checks["another"].status, worst(checks)) == ("down", "ok", "down")


async def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mysql"):
        async with open_database("mysql+aiomysql://localhost/x"):
            pass
