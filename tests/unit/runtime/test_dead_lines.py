"""PostgreSQL and NATS behind lines that are dead without saying so: no wait is without end, new connections take over."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from streamgate.adapters import bus_nats
from streamgate.domain.errors import Unavailable
from streamgate.ports.bus import Message
from streamgate.runtime import engines
from streamgate.runtime.database import Database, open_database
from tests.support.nats import nats_server
from tests.support.postgres import Postgres
from tests.support.proxy import Proxy, proxy
from tests.support.waiting import until

LIMIT_S = 0.4


@pytest.fixture
async def behind(
    postgresql: tuple[Postgres, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Database, Proxy]]:
    """A database with five connections in its pool, all through one line."""
    for name in ("CONNECT_S", "ANSWER_S", "PING_S"):
        monkeypatch.setattr(engines, name, LIMIT_S)
    server, _ = postgresql
    with proxy(server.port) as line:
        async with open_database(server.url("postgres", line.port)) as database:
            await asyncio.gather(*(reads(database, "SELECT pg_sleep(0.1)") for _ in range(5)))
            yield database, line


async def reads(database: Database, statement: str = "SELECT 1") -> object:
    async with database.read() as connection:
        return (await connection.execute(text(statement))).scalar()


async def test_what_lies_in_the_pool_is_given_up_at_once_and_all_is_well_when_the_line_is(
    behind: tuple[Database, Proxy],
) -> None:
    database, line = behind
    line.lose()
    began = time.monotonic()
    answers = await asyncio.gather(*(reads(database) for _ in range(8)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert time.monotonic() - began < 10 * LIMIT_S
    line.mend()
    # None of the old connections is tried again, one after the other.
    began = time.monotonic()
    assert await asyncio.gather(*(reads(database) for _ in range(8))) == [1] * 8
    assert time.monotonic() - began < 4 * LIMIT_S


async def test_a_transaction_that_hangs_is_unavailable_and_leaves_no_connection_behind(
    behind: tuple[Database, Proxy],
) -> None:
    database, line = behind

    async def work() -> None:
        async with database.write() as tx:
            await tx.execute(text("SELECT 1"))
            line.lose()
            await tx.execute(text("SELECT 2"))

    with pytest.raises(Unavailable):
        await work()
    line.mend()
    assert await reads(database) == 1


async def test_a_commit_that_hangs_is_unavailable(behind: tuple[Database, Proxy]) -> None:
    database, line = behind

    async def work() -> None:
        async with database.write() as tx:
            await tx.execute(text("SELECT 1"))
            line.lose()

    with pytest.raises(Unavailable):
        await work()


async def test_a_server_that_cannot_be_reached_is_unavailable(postgresql: tuple[Postgres, str]) -> None:
    server, _ = postgresql
    for port in (1, server.port):
        url = server.url("postgres", port).replace("127.0.0.1", "no-such-host.invalid" if port != 1 else "127.0.0.1")
        async with open_database(url) as database:
            with pytest.raises(Unavailable):
                await reads(database)


async def test_a_transaction_whose_client_is_gone_does_not_hold_its_locks_for_ever(
    postgresql: tuple[Postgres, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_S", 1)
    server, template = postgresql

    async def work(database: Database) -> None:
        async with database.write() as tx:
            await tx.execute(text("SELECT 1"))
            await asyncio.sleep(1.3)
            await tx.execute(text("SELECT 1"))

    async with open_database(server.url(template)) as database:
        with pytest.raises(Unavailable):
            await work(database)


async def test_facts_flow_again_when_the_line_to_nats_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_nats, "PING_S", 0.2)
    monkeypatch.setattr(bus_nats, "PUBLISH_S", 0.5)
    taken: list[str] = []

    async def take(message: Message) -> None:
        taken.append(message.id)

    async def published() -> bool:
        with contextlib.suppress(Unavailable):
            await bus.publish(Message("tests.happened", b"", id="evt_1"))
            return True
        return False

    with nats_server(tmp_path) as server, proxy(server.port) as line:
        async with bus_nats.NatsBus(f"nats://127.0.0.1:{line.port}") as bus:
            async with await bus.consume("tests", "tests.happened", take):
                line.lose()
                assert not await published()
                line.mend()
                await until(published, within_s=10)
                await until(lambda: taken, within_s=10)
