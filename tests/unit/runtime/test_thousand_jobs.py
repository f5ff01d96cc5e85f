"""A thousand jobs on PostgreSQL while workers are killed with kill -9 every half second; and how idle workers are woken."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.bus_nats import NatsBus
from streamgate.domain.clock import SystemClock
from streamgate.runtime.database import Database, open_database
from streamgate.runtime.jobs import Attempt, Jobs
from tests.support.nats import nats_server
from tests.support.postgres import Postgres
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
JOBS = 1000
EVERY_S = 0.5
KILLING_S = 15.0
WORKERS = 3


class Payload(msgspec.Struct):
    n: int


@pytest.fixture
def url(postgresql: tuple[Postgres, str]) -> Iterator[str]:
    server, template = postgresql
    name = server.create(template)
    try:
        yield server.url(name)
    finally:
        server.drop(name)


class Workers:
    """Worker processes, the oldest of which is killed once it works."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._alive: list[asyncio.subprocess.Process] = []
        self.kills = 0

    async def start(self) -> None:
        """One more."""
        command = [sys.executable, "-m", "tests.support.killable_worker", self._url, "5"]
        self._alive.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT))

    async def kill_oldest(self) -> None:
        """kill -9, wherever it is in its work."""
        victim = self._alive.pop(0)
        assert victim.stdout is not None
        await victim.stdout.readuntil(b"working\n")
        victim.kill()
        await victim.communicate()
        self.kills += 1

    async def end(self) -> None:
        for worker in self._alive:
            worker.kill()
            await worker.communicate()


async def left(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.execute(text("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"))
        return int(found.scalar_one())


async def kill_while_there_is_work(workers: Workers, database: Database) -> None:
    until_s = time.monotonic() + KILLING_S
    while await left(database) > WORKERS * 4 and time.monotonic() < until_s:
        await workers.start()
        pause = asyncio.create_task(asyncio.sleep(EVERY_S))
        await workers.kill_oldest()
        await pause


async def test_each_of_a_thousand_is_done_exactly_once(url: str) -> None:
    async with open_database(url) as database, MemoryBus() as bus:
        jobs = Jobs(database, bus, SystemClock())
        async with database.write() as tx:
            await tx.execute(text("CREATE TABLE effects (job TEXT, attempt INTEGER)"))
            ids = {await jobs.submit(tx, "work", Payload(n), queue="q") for n in range(JOBS)}
        workers = Workers(url)
        try:
            for _ in range(WORKERS):
                await workers.start()
            async with asyncio.timeout(120):
                await kill_while_there_is_work(workers, database)
                while await left(database):
                    await asyncio.sleep(0.1)
        finally:
            await workers.end()
        rows = {job.id: job for job in await jobs.find(limit=JOBS + 1)}
        async with database.read() as connection:
            effects = [tuple(row) for row in await connection.execute(text("SELECT job, attempt FROM effects"))]
    assert rows.keys() == ids
    assert {job.state for job in rows.values()} == {"done"}
    assert Counter(job for job, _ in effects) == dict.fromkeys(ids, 1)
    assert all(rows[job].attempt == attempt for job, attempt in effects)
    assert workers.kills >= 5
    assert any(job.crashes for job in rows.values()), "no worker died with a job in its hands"


@asynccontextmanager
async def process(url: str, bus_url: str, poll_s: float) -> AsyncIterator[Jobs]:
    """Jobs as one more process has them: its own connections to everything."""
    async with open_database(url) as database, NatsBus(bus_url) as bus:
        yield Jobs(database, bus, SystemClock(), poll_s=poll_s)


async def test_a_job_wakes_an_idle_worker_of_another_process(url: str, tmp_path: Path) -> None:
    """Which otherwise would look only after a minute."""
    done: list[int] = []

    async def handle(attempt: Attempt) -> None:
        done.append(attempt.payload(Payload).n)

    with nats_server(tmp_path) as server:
        async with process(url, server.url, 60) as giver, process(url, server.url, 60) as taker:
            async with taker.runner("q", {"work": handle}, slots=1):
                await asyncio.sleep(0.3)
                for n in range(3):
                    async with giver.database.write() as tx:
                        await giver.submit(tx, "work", Payload(n), queue="q")
                    await until(lambda n=n: len(done) == n + 1)  # type: ignore[misc]
    assert done == [0, 1, 2]


async def test_a_lost_ping_costs_no_more_than_a_poll(url: str) -> None:
    """The two buses do not hear each other, as when NATS is away."""
    done: list[int] = []

    async def handle(attempt: Attempt) -> None:
        done.append(attempt.payload(Payload).n)

    async with open_database(url) as database, MemoryBus() as one, MemoryBus() as other:
        giver, taker = Jobs(database, one, SystemClock()), Jobs(database, other, SystemClock(), poll_s=0.3)
        async with taker.runner("q", {"work": handle}, slots=1):
            async with giver.database.write() as tx:
                await giver.submit(tx, "work", Payload(7), queue="q")
            await until(lambda: done == [7])
