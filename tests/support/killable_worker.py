"""A process that works on jobs until it is killed: ``python -m tests.support.killable_worker <database url> <ms per job>``.

Writes the line ``working`` when its first job begins. The effect of a job is a row in the table ``effects``, written in the
transaction that completes it.
"""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy import text

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.clock import SystemClock
from streamgate.runtime.database import open_database
from streamgate.runtime.jobs import Attempt, Jobs


async def main(url: str, ms: int) -> None:
    said = False

    async def handle(attempt: Attempt) -> None:
        nonlocal said
        if not said:
            said = True
            sys.stdout.write("working\n")
            sys.stdout.flush()
        await asyncio.sleep(ms / 1000)
        async with attempt.completing() as tx:
            values = {"job": attempt.job.id, "attempt": attempt.job.attempt}
            await tx.execute(text("INSERT INTO effects (job, attempt) VALUES (:job, :attempt)"), values)

    async with open_database(url) as database, MemoryBus() as bus:
        jobs = Jobs(database, bus, SystemClock(), lease_s=0.4, heartbeat_s=0.1, poll_s=0.05)
        async with jobs.runner("q", {"work": handle}, slots=2):
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
