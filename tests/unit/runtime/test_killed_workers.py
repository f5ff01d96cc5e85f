"""Workers that are killed with kill -9 again and again lose no job and do none twice."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

import msgspec
from sqlalchemy import text

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.clock import SystemClock
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs

ROOT = Path(__file__).resolve().parents[3]
KILLS = 8
MS_PER_JOB = 80
WAITING = 6


class Payload(msgspec.Struct):
    n: int


async def start(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.killable_worker",
        url,
        str(MS_PER_JOB),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def keep_fed(jobs: Jobs, ids: list[str]) -> None:
    """Keep a few jobs waiting, so that every worker that starts finds one."""
    while True:
        async with jobs.database.write() as tx:
            for _ in range(WAITING - (await jobs.depth("q"))[0]):
                ids.append(await jobs.submit(tx, "work", Payload(len(ids)), queue="q"))
        await asyncio.sleep(0.02)


async def kill_in_turn(workers: list[asyncio.subprocess.Process], url: str) -> None:
    for _ in range(KILLS):
        victim = workers.pop(0)
        assert victim.stdout is not None
        await victim.stdout.readuntil(b"working\n")
        await asyncio.sleep(random.uniform(0, 0.2))
        victim.kill()
        await victim.wait()
        workers.append(await start(url))


async def test_every_job_is_done_exactly_once_however_often_workers_die(database: Database, database_url: str) -> None:
    async with database.write() as tx:
        await tx.execute(text("CREATE TABLE effects (job TEXT, attempt INTEGER)"))
    ids: list[str] = []
    async with MemoryBus() as bus:
        jobs = Jobs(database, bus, SystemClock())
        feeder = asyncio.create_task(keep_fed(jobs, ids))
        workers = [await start(database_url), await start(database_url)]
        try:
            async with asyncio.timeout(90):
                await kill_in_turn(workers, database_url)
                feeder.cancel()
                await asyncio.wait([feeder])
                while await jobs.find(state="queued") or await jobs.find(state="running"):
                    await asyncio.sleep(0.05)
        finally:
            feeder.cancel()
            for worker in workers:
                worker.kill()
                await worker.communicate()
        rows = {job.id: job for job in await jobs.find(limit=10_000)}
    async with database.read() as connection:
        effects = [tuple(row) for row in await connection.execute(text("SELECT job, attempt FROM effects"))]
        if database.dialect == "sqlite":
            assert (await connection.execute(text("PRAGMA integrity_check"))).scalar() == "ok"
    assert {job.state for job in rows.values()} == {"done"}
    assert set(ids) <= rows.keys()
    assert Counter(job for job, _ in effects) == dict.fromkeys(rows, 1)
    assert all(rows[job].attempt == attempt for job, attempt in effects)
    assert sum(job.crashes for job in rows.values()) >= KILLS / 2, "hardly a worker died with a job in its hands"
    assert all(job.failures == 0 for job in rows.values())
