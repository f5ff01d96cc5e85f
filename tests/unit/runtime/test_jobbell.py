"""Rings for jobs: one wakes one idle runner, wherever it was rung; none is needed for a job to be done in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.bus_nats import NatsBus
from streamgate.domain.clock import SystemClock
from streamgate.ports.bus import Bus
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Attempt, Jobs
from tests.support.nats import NatsServer, nats_server

SETTLED_S = 0.05
RARELY_S = 60.0
"""Polls so rarely that only a ring explains a start."""


class Payload(msgspec.Struct):
    n: int = 0


class Looking:
    """The database, and how often it was looked into."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.looks = 0

    def read(self) -> AbstractAsyncContextManager[Any]:
        self.looks += 1
        return self._database.read()

    def write(self) -> AbstractAsyncContextManager[Any]:
        return self._database.write()


class Runner:
    """One process: its own connection to the bus, one slot; ``done`` tells the numbers of its jobs. Number 0 waits for `go`."""

    def __init__(self, database: Database, bus: Bus, poll_s: float) -> None:
        self.database = Looking(database)
        self.jobs = Jobs(self.database, bus, SystemClock(), poll_s=poll_s)  # type: ignore[arg-type]
        self.begun: list[int] = []
        self.go, self.drain = asyncio.Event(), asyncio.Event()

    async def handle(self, attempt: Attempt) -> None:
        number = attempt.payload(Payload).n
        self.begun.append(number)
        if number == 0:
            await self.go.wait()

    def working(self) -> AbstractAsyncContextManager[None]:
        return self.jobs.runner("q", {"work": self.handle}, slots=1, grace_s=0.05, drain=self.drain)


class World:
    """A database, a bus, and runners."""

    def __init__(self, database: Database, connect: Callable[[], Awaitable[Bus]], stack: AsyncExitStack) -> None:
        self._database, self._connect, self._stack = database, connect, stack
        self._submitting: Jobs | None = None

    async def runners(self, count: int, *, poll_s: float = RARELY_S) -> list[Runner]:
        """So many, idle and hearing: each has looked twice, before it heard and after."""
        made = [Runner(self._database, await self._connect(), poll_s) for _ in range(count)]
        for one in made:
            await self._stack.enter_async_context(one.working())
        await until(lambda: all(one.database.looks == 2 for one in made))
        await asyncio.sleep(SETTLED_S)
        return made

    async def submit(self, number: int) -> None:
        if self._submitting is None:
            self._submitting = Jobs(self._database, await self._connect(), SystemClock())
        async with self._database.write() as tx:
            await self._submitting.submit(tx, "work", Payload(number), queue="q")


@pytest.fixture
def database_url(embedded_url: str) -> str:
    """One database is enough here."""
    return embedded_url


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            bus = await stack.enter_async_context(MemoryBus())

            async def connect() -> Bus:
                return bus
        else:
            server = stack.enter_context(nats_server(tmp_path))

            async def connect() -> Bus:
                return await stack.enter_async_context(NatsBus(server.url))

        yield World(database, connect, stack)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def begun(runners: list[Runner]) -> list[int]:
    return sorted(number for one in runners for number in one.begun)


async def test_one_idle_runner_wakes_and_the_others_do_not_look(world: World) -> None:
    runners = await world.runners(4)
    for number in range(1, 4):
        before = [one.database.looks for one in runners]
        await world.submit(number)
        await until(lambda number=number: begun(runners) == list(range(1, number + 1)))  # type: ignore[misc]
        await asyncio.sleep(SETTLED_S)
        assert sum(one.database.looks != looks for one, looks in zip(runners, before, strict=True)) == 1


async def test_a_ring_finds_the_idle_one_among_the_busy(world: World) -> None:
    runners = await world.runners(5)
    for count in range(1, 5):
        await world.submit(0)
        await until(lambda count=count: begun(runners) == [0] * count)  # type: ignore[misc]
    for number in range(1, 6):
        await world.submit(number)
        await until(lambda number=number: begun(runners)[4:] == list(range(1, number + 1)))  # type: ignore[misc]
    for one in runners:
        one.go.set()


async def test_as_many_jobs_at_once_wake_as_many_runners(world: World) -> None:
    runners = await world.runners(4)
    await asyncio.gather(*(world.submit(0) for _ in range(4)))
    await until(lambda: [one.begun for one in runners] == [[0]] * 4)
    for one in runners:
        one.go.set()


async def test_where_nobody_is_idle_the_first_that_is_takes_the_job(world: World) -> None:
    runners = await world.runners(2)
    for _ in runners:
        await world.submit(0)
    await until(lambda: begun(runners) == [0, 0])
    await world.submit(1)
    await asyncio.sleep(SETTLED_S)
    runners[1].go.set()
    await until(lambda: runners[1].begun == [0, 1])
    runners[0].go.set()


async def test_one_that_is_about_to_stop_passes_rings_on(world: World) -> None:
    runners = await world.runners(3)
    for one in runners[:2]:
        one.drain.set()
    for number in range(1, 4):
        await world.submit(number)
        await until(lambda number=number: runners[2].begun == list(range(1, number + 1)))  # type: ignore[misc]


async def test_a_lost_ring_costs_no_more_than_the_poll_time(database: Database, tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    async with AsyncExitStack() as stack:

        async def connect() -> Bus:
            return await stack.enter_async_context(NatsBus(server.url))

        world = World(database, connect, stack)
        (one,) = await world.runners(1, poll_s=0.2)
        await world.submit(1)
        await until(lambda: one.begun == [1])
        server.kill()
        for number in (2, 3):
            await world.submit(number)
            await until(lambda number=number: one.begun[-1] == number, 3)  # type: ignore[misc]
        server.start()
    server.kill()
