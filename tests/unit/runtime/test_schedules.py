"""Periodic work leaves a trace: when it ran last, how often, and what went wrong."""

from __future__ import annotations

import asyncio

from streamgate.domain.errors import Unavailable
from streamgate.runtime.database import Database
from streamgate.runtime.schedules import Schedules
from tests.support.clock import FakeClock


async def test_runs_are_written_down_and_failures_too(database: Database, clock: FakeClock) -> None:
    schedules = Schedules(database, clock, "worker")
    ran = 0
    began = clock.now_ms()

    async def work() -> None:
        nonlocal ran
        ran += 1
        clock.advance(2)
        if ran == 2:
            raise Unavailable("The store is away.")
        if ran == 3:
            raise ValueError("a secret /path")

    async with schedules.every(0.01, work, name="sweep", at_once=True):
        while ran < 5:
            await asyncio.sleep(0.01)
    other = Schedules(database, clock, "auth")
    (found,) = await other.all()
    assert (found.service, found.name, found.every_s) == ("worker", "sweep", 0.01)
    assert found.runs >= 4
    assert (found.failures, found.error) == (2, None)
    assert found.finished_ms - found.started_ms == 2000
    assert found.started_ms >= began


async def test_the_last_error_is_told_in_our_words(database: Database, clock: FakeClock) -> None:
    schedules = Schedules(database, clock, "worker")
    for error, told in (
        (Unavailable("The store is away."), "The store is away."),
        (ValueError("a secret"), "ValueError"),
    ):
        failed = asyncio.Event()

        async def work(error: Exception = error, failed: asyncio.Event = failed) -> None:
            failed.set()
            raise error

        async with schedules.every(3600, work, name="sweep", at_once=True):
            await failed.wait()
            while not (found := await schedules.all()) or found[0].error != told:
                await asyncio.sleep(0.01)
