"""The runner: what is done, in which order, and what becomes of a job however its attempt ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog
from sqlalchemy import text, update

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import InsufficientStorage, Unavailable
from streamgate.runtime import jobrunner, jobstore, trace
from streamgate.runtime.database import Database, Transaction
from streamgate.runtime.jobs import Attempt, JobRow, Jobs, LeaseLost, PermanentFailure, Snooze
from streamgate.runtime.tables import jobs as table


class Payload(msgspec.Struct):
    n: int = 0


Handle = Callable[[Attempt], Awaitable[None]]


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        yield bus


@pytest.fixture
def jobs(database: Database, bus: MemoryBus) -> Jobs:
    """Short leases; polls so rarely that only a ring can explain a prompt start."""
    return Jobs(database, bus, SystemClock(), lease_s=0.6, heartbeat_s=0.05, poll_s=30)


async def submit(jobs: Jobs, n: int = 0, *, kind: str = "work", queue: str = "q", **more: Any) -> str:
    async with jobs.database.write() as tx:
        return await jobs.submit(tx, kind, Payload(n), queue=queue, **more)


async def seen(jobs: Jobs, job_id: str) -> JobRow:
    row = await jobs.get(job_id)
    assert row is not None
    return row


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = 5) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)


async def ended(jobs: Jobs, job_id: str, state: str, seconds: float = 5) -> JobRow:
    async def so() -> bool:
        return (await seen(jobs, job_id)).state == state

    await until(so, seconds)
    return await seen(jobs, job_id)


@asynccontextmanager
async def working(jobs: Jobs, handle: Handle, **more: Any) -> AsyncIterator[None]:
    async with jobs.runner("q", {"work": handle}, **({"slots": 1, "grace_s": 0.05} | more)):
        yield


async def nothing(attempt: Attempt) -> None:
    """Done at once."""


async def for_ever(attempt: Attempt) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed attempts come again at once."""
    monkeypatch.setattr(jobrunner, "backoff_s", lambda failures: 0.0)


async def test_the_most_urgent_come_first_and_the_older_before_the_newer(jobs: Jobs) -> None:
    order: list[int] = []

    async def handle(attempt: Attempt) -> None:
        order.append(attempt.payload(Payload).n)

    now = jobs.clock.now_ms()
    for n, (priority, age_ms) in enumerate([(5, 10), (1, 10), (5, 20), (1, 30), (9, 90)]):
        last = await submit(jobs, n, priority=priority, run_at_ms=now - age_ms)
    async with working(jobs, handle):
        await until(lambda: len(order) == 5)
        await ended(jobs, last, "done")
    assert order == [3, 1, 2, 0, 4]


async def test_as_many_run_at_a_time_as_there_are_slots(jobs: Jobs) -> None:
    now, most, done = 0, 0, 0
    go = asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        nonlocal now, most, done
        now, most = now + 1, max(most, now + 1)
        await go.wait()
        now, done = now - 1, done + 1

    async with working(jobs, handle, slots=3):
        for _ in range(9):
            await submit(jobs)
        await until(lambda: now == 3)
        go.set()
        await until(lambda: done == 9)
    assert most == 3


async def test_a_job_that_lets_go_ends_beside_the_next_and_beside_no_third(jobs: Jobs) -> None:
    begun: list[int] = []
    store = {n: asyncio.Event() for n in range(3)}

    async def handle(attempt: Attempt) -> None:
        n = attempt.payload(Payload).n
        begun.append(n)
        attempt.let_go()
        await store[n].wait()

    ids = [await submit(jobs, n) for n in range(3)]
    async with working(jobs, handle):
        await until(lambda: begun == [0, 1])
        store[1].set()
        await ended(jobs, ids[1], "done")
        assert begun == [0, 1]
        store[0].set()
        await until(lambda: begun == [0, 1, 2])
        await ended(jobs, ids[0], "done")
        store[2].set()
        await ended(jobs, ids[2], "done")


async def test_what_goes_wrong_after_a_job_has_let_go_is_its_own_failure(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        attempt.let_go()
        await asyncio.sleep(0)
        if attempt.payload(Payload).n == 0:
            raise PermanentFailure("internal", "the store is full")

    ids = [await submit(jobs, n) for n in range(2)]
    async with working(jobs, handle):
        await ended(jobs, ids[1], "done")
        assert (await ended(jobs, ids[0], "failed")).errors[-1]["detail"] == "the store is full"


async def test_jobs_wait_for_a_runner_and_are_done_when_one_starts(jobs: Jobs) -> None:
    job = await submit(jobs)
    assert (await seen(jobs, job)).state == "queued"
    async with working(jobs, nothing):
        row = await ended(jobs, job, "done")
    assert (row.attempt, row.progress, row.failures, row.crashes, row.lease_token) == (1, 1.0, 0, 0, None)
    assert row.finished_ms is not None


async def test_a_runner_is_rung_by_the_commit_and_by_nothing_before_it(jobs: Jobs) -> None:
    started = asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        started.set()

    async with working(jobs, handle):
        await asyncio.sleep(0.05)
        async with jobs.database.write() as tx:
            await jobs.submit(tx, "work", Payload(), queue="q")
            await asyncio.sleep(0.1)
            assert not started.is_set()
        async with asyncio.timeout(1):
            await started.wait()


async def test_a_job_of_a_transaction_that_is_rolled_back_never_was(jobs: Jobs) -> None:
    ran: list[str] = []

    async def handle(attempt: Attempt) -> None:
        ran.append(attempt.job.id)

    async with working(jobs, handle):
        with pytest.raises(RuntimeError):  # noqa: PT012 (the transaction is what raises)
            async with jobs.database.write() as tx:
                lost = await jobs.submit(tx, "work", Payload(), queue="q")
                raise RuntimeError
        kept = await submit(jobs)
        await ended(jobs, kept, "done")
    assert ran == [kept]
    assert await jobs.get(lost) is None


async def test_a_job_of_a_later_time_starts_at_that_time(jobs: Jobs) -> None:
    at = jobs.clock.now_ms() + 200
    async with working(jobs, nothing):
        row = await ended(jobs, await submit(jobs, run_at_ms=at), "done")
    assert row.started_ms is not None
    assert 0 <= row.started_ms - at < 1000


async def test_a_slot_kept_for_urgent_jobs_leaves_the_others_and_takes_a_promoted_one_at_once(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = 0
    claim = jobstore.claim

    async def counted(*args: Any, **named: Any) -> JobRow | None:
        nonlocal claims
        claims += 1
        return await claim(*args, **named)

    monkeypatch.setattr(jobstore, "claim", counted)
    job = await submit(jobs, priority=100)
    async with working(jobs, nothing, max_priority=10):
        await asyncio.sleep(0.15)
        assert (await seen(jobs, job)).state == "queued"
        assert claims == 0, "a job that is not ours must not keep us busy"
        async with jobs.database.write() as tx:
            assert await jobs.promote(tx, job, 10)
        await ended(jobs, job, "done", 1)


async def test_a_kind_without_handler_is_left_to_others(jobs: Jobs) -> None:
    foreign = await submit(jobs, kind="foreign")
    async with working(jobs, nothing):
        await ended(jobs, await submit(jobs), "done")
        assert (await seen(jobs, foreign)).attempt == 0


async def test_a_running_job_is_cancelled_at_once_and_its_finally_runs(jobs: Jobs) -> None:
    killed = asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        try:
            await for_ever(attempt)
        finally:
            killed.set()

    jobs.heartbeat_s = 30
    job = await submit(jobs)
    async with working(jobs, handle):
        await until(lambda: job in jobs.running)
        async with jobs.database.write() as tx:
            assert await jobs.cancel(tx, job)
        row = await ended(jobs, job, "canceled", 1)
    assert killed.is_set()
    assert (row.failures, row.crashes, row.lease_token) == (0, 0, None)
    assert row.finished_ms is not None


async def test_a_job_cancelled_from_another_process_stops_at_its_next_heartbeat(jobs: Jobs) -> None:
    job = await submit(jobs, subject="ast_1")
    elsewhere = Jobs(jobs.database, jobs.bus, jobs.clock)
    async with working(jobs, for_ever):
        await until(lambda: job in jobs.running)
        async with elsewhere.database.write() as tx:
            assert await elsewhere.cancel_subject(tx, "ast_1") == 1
        await ended(jobs, job, "canceled", 1)


async def test_a_handler_that_answers_its_cancel_with_an_error_is_canceled_and_not_failed(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        try:
            await for_ever(attempt)
        except asyncio.CancelledError:
            raise PermanentFailure("internal", "the child died") from None

    job = await submit(jobs)
    async with working(jobs, handle):
        await until(lambda: job in jobs.running)
        async with jobs.database.write() as tx:
            await jobs.cancel(tx, job)
        row = await ended(jobs, job, "canceled", 1)
    assert (row.failures, row.errors) == (0, [])


async def test_a_queued_job_is_canceled_at_once_and_can_be_run_again(jobs: Jobs) -> None:
    job = await submit(jobs)
    async with jobs.database.write() as tx:
        assert await jobs.cancel(tx, job)
        assert not await jobs.cancel(tx, job)
    assert (await seen(jobs, job)).state == "canceled"
    async with working(jobs, nothing):
        async with jobs.database.write() as tx:
            assert await jobs.retry(tx, job)
        await ended(jobs, job, "done", 1)
    async with jobs.database.write() as tx:
        assert not await jobs.retry(tx, job)


@pytest.mark.usefixtures("quick")
async def test_a_failed_attempt_comes_again_and_may_succeed(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        if attempt.job.attempt == 1:
            raise Unavailable("The storage does not answer.")
        if attempt.job.attempt == 2:
            raise ValueError("secret detail")

    async with working(jobs, handle):
        row = await ended(jobs, await submit(jobs), "done")
    assert (row.attempt, row.failures, row.crashes) == (3, 2, 0)
    assert [(e["code"], e["attempt"]) for e in row.errors] == [("unavailable", 1), ("internal", 2)]
    assert "secret" not in row.errors[1]["detail"]


@pytest.mark.usefixtures("quick")
async def test_a_job_fails_for_good_after_its_failures_and_forgets_them_when_run_again(jobs: Jobs) -> None:
    broken = True

    async def handle(attempt: Attempt) -> None:
        if broken:
            raise Unavailable("The storage does not answer.")

    async with working(jobs, handle):
        job = await submit(jobs)
        row = await ended(jobs, job, "failed")
        assert (row.attempt, row.failures) == (jobs_max() + 1, jobs_max() + 1)
        broken = False
        async with jobs.database.write() as tx:
            assert await jobs.retry(tx, job)
        row = await ended(jobs, job, "done")
    assert (row.attempt, row.failures, row.errors) == (jobs_max() + 2, 0, [])


def jobs_max() -> int:
    return jobstore.MAX_FAILURES


async def test_a_permanent_failure_is_not_tried_again(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        raise PermanentFailure("unsupported_codec", "This codec is not supported.")

    async with working(jobs, handle):
        row = await ended(jobs, await submit(jobs), "failed")
    assert row.attempt == 1
    assert (row.errors[0]["code"], row.errors[0]["detail"]) == ("unsupported_codec", "This codec is not supported.")


async def test_a_snoozed_job_comes_again_later_without_a_failure(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        if attempt.job.attempt == 1:
            raise Snooze(0.2)

    async with working(jobs, handle):
        began = jobs.clock.now_ms()
        row = await ended(jobs, await submit(jobs), "done")
    assert (row.attempt, row.failures) == (2, 0)
    assert row.finished_ms is not None
    assert row.finished_ms - began >= 200


async def test_a_handler_that_cancels_itself_has_failed(jobs: Jobs) -> None:
    async def handle(attempt: Attempt) -> None:
        raise asyncio.CancelledError

    job = await submit(jobs)
    async with working(jobs, handle):
        await until_failures(jobs, job, 1)
    row = await seen(jobs, job)
    assert (row.failures, row.crashes) == (row.attempt, 0)
    assert row.errors[0]["code"] == "internal"


async def until_failures(jobs: Jobs, job: str, least: int) -> None:
    async def so() -> bool:
        return (await seen(jobs, job)).failures >= least

    await until(so)


def test_backoff_grows_is_random_and_has_an_end() -> None:
    for failures, longest in ((0, 2), (1, 4), (3, 16), (30, 300)):
        waits = [jobrunner.backoff_s(failures) for _ in range(300)]
        assert 0 <= min(waits) < longest / 4
        assert longest * 0.75 < max(waits) <= longest


async def abandoned(jobs: Jobs, job: str) -> JobRow:
    """The job as a process leaves it that claims it and dies."""
    async with jobs.database.write() as tx:
        row = await jobstore.claim(tx, jobs.clock.now_ms(), 100, queue="q", kinds=("work",), worker="dead")
    assert row is not None
    assert row.id == job
    return row


async def test_the_job_of_a_dead_process_is_rescued_and_done_by_another(jobs: Jobs) -> None:
    job = await submit(jobs)
    await abandoned(jobs, job)
    async with working(jobs, nothing):
        row = await ended(jobs, job, "done")
    assert (row.attempt, row.crashes, row.failures) == (2, 1, 0)


async def test_a_runner_goes_on_rescuing_and_working_when_the_database_was_away(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobrunner, "PAUSE_S", 0.02)
    job = await submit(jobs)
    await abandoned(jobs, job)
    away = Away(jobs, monkeypatch)
    away.error = InsufficientStorage("The database's disk is full.")
    async with working(jobs, nothing):
        await until(lambda: away.refused >= 2)
        away.error = None
        assert (await ended(jobs, job, "done")).crashes == 1


class Away:
    """Lets every write of the database fail while ``error`` is set."""

    def __init__(self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.refused = 0
        write = jobs.database.write

        @asynccontextmanager
        async def perhaps() -> AsyncIterator[Transaction]:
            if self.error is not None:
                self.refused += 1
                if self.hangs:
                    await asyncio.sleep(5)
                raise self.error
            async with write() as tx:
                yield tx

        monkeypatch.setattr(jobs.database, "write", perhaps)


async def test_work_that_ends_while_the_database_is_away_is_not_done_again(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobrunner, "PAUSE_S", 0.02)
    away = Away(jobs, monkeypatch)

    async def handle(attempt: Attempt) -> None:
        away.error = Unavailable("The database does not answer.")

    job = await submit(jobs)
    async with working(jobs, handle):
        await until(lambda: away.refused >= 3)
        away.error = None
        row = await ended(jobs, job, "done")
    assert (row.attempt, row.crashes) == (1, 0)


@pytest.mark.parametrize("hangs", [False, True])
async def test_work_stops_when_its_lease_could_not_be_renewed_for_a_whole_lease(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    stopped = asyncio.Event()
    away = Away(jobs, monkeypatch)
    away.hangs = hangs

    async def handle(attempt: Attempt) -> None:
        away.error = Unavailable("The database does not answer.")
        try:
            await for_ever(attempt)
        finally:
            stopped.set()

    await submit(jobs)
    async with working(jobs, handle):
        async with asyncio.timeout(jobs.lease_s + 1):
            await stopped.wait()
        assert away.refused >= (1 if hangs else 2)
        away.error = None


async def test_leaving_lets_what_is_nearly_done_finish(jobs: Jobs) -> None:
    started = asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        started.set()
        await asyncio.sleep(0.1)

    job = await submit(jobs)
    async with working(jobs, handle, grace_s=5):
        await started.wait()
    assert (await seen(jobs, job)).state == "done"


async def test_leaving_waits_for_what_has_let_go_and_releases_it_after_the_grace_time(jobs: Jobs) -> None:
    store, killed = asyncio.Event(), asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        attempt.let_go()
        if attempt.payload(Payload).n == 0:
            await store.wait()
            return
        try:
            await for_ever(attempt)
        finally:
            killed.set()

    quick, slow = [await submit(jobs, n) for n in range(2)]
    async with working(jobs, handle, grace_s=0.3):
        await until(lambda: jobs.running.keys() == {quick, slow})
        asyncio.get_running_loop().call_later(0.05, store.set)
    assert killed.is_set()
    assert ((await seen(jobs, quick)).state, (await seen(jobs, slow)).state) == ("done", "queued")


async def test_leaving_releases_what_takes_longer_than_the_grace_time(jobs: Jobs) -> None:
    stopped = asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        try:
            await for_ever(attempt)
        finally:
            await asyncio.sleep(0.02)
            stopped.set()

    job = await submit(jobs)
    async with working(jobs, handle):
        await until(lambda: job in jobs.running)
    row = await seen(jobs, job)
    assert stopped.is_set()
    assert (row.state, row.failures, row.crashes, row.lease_token, row.finished_ms) == ("queued", 0, 0, None, None)
    assert jobs.running == {}


async def test_leaving_is_whole_even_when_it_is_cut_short(jobs: Jobs) -> None:
    job, leave = await submit(jobs), asyncio.Event()

    async def plugin() -> None:
        async with working(jobs, for_ever, grace_s=60):
            await leave.wait()

    running = asyncio.create_task(plugin())
    await until(lambda: job in jobs.running)
    leave.set()
    await asyncio.sleep(0.05)
    running.cancel()  # whoever stops us has less patience than the grace time
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await seen(jobs, job)).state == "queued"
    assert jobs.running == {}


async def test_a_job_claimed_while_the_process_stops_is_given_back(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = jobstore.claim
    claiming = asyncio.Event()

    async def slow(*args: Any, **named: Any) -> JobRow | None:
        row = await claim(*args, **named)
        claiming.set()
        await asyncio.sleep(0.15)
        return row

    monkeypatch.setattr(jobstore, "claim", slow)
    job = await submit(jobs)
    async with working(jobs, nothing, grace_s=0.01):
        await claiming.wait()
    row = await seen(jobs, job)
    assert (row.state, row.attempt, row.lease_token) == ("queued", 1, None)


async def test_nothing_is_claimed_once_draining(jobs: Jobs) -> None:
    drain, gate = asyncio.Event(), asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        await gate.wait()

    first = await submit(jobs)
    async with working(jobs, handle, drain=drain):
        await until(lambda: first in jobs.running)
        second = await submit(jobs)
        drain.set()
        gate.set()
        await ended(jobs, first, "done")
        await asyncio.sleep(0.1)
        assert (await seen(jobs, second)).state == "queued"


async def test_progress_is_stored_within_its_bounds(jobs: Jobs) -> None:
    gate, told = asyncio.Event(), asyncio.Event()

    async def handle(attempt: Attempt) -> None:
        await attempt.progress(0.25)
        told.set()
        await gate.wait()
        await attempt.progress(7)
        raise PermanentFailure("internal", "enough")

    job = await submit(jobs)
    async with working(jobs, handle):
        await told.wait()
        assert (await seen(jobs, job)).progress == 0.25
        gate.set()
        assert (await ended(jobs, job, "failed")).progress == 1.0


async def test_an_attempt_whose_lease_is_lost_stops_and_writes_nothing(jobs: Jobs) -> None:
    stopped = asyncio.Event()
    refused: list[type[Exception]] = []

    async def handle(attempt: Attempt) -> None:
        try:
            await for_ever(attempt)
        finally:
            for write in (attempt.progress(0.9), completed(attempt)):
                try:
                    await write
                except LeaseLost as error:
                    refused.append(type(error))
            stopped.set()

    job = await submit(jobs)
    async with working(jobs, handle):
        await until(lambda: job in jobs.running)
        async with jobs.database.write() as tx:
            await tx.execute(update(table).values(lease_token="another", lease_until_ms=jobs.clock.now_ms() + 60_000))
        async with asyncio.timeout(1):
            await stopped.wait()
    row = await seen(jobs, job)
    assert refused == [LeaseLost, LeaseLost]
    assert (row.state, row.lease_token, row.progress, row.failures) == ("running", "another", 0.0, 0)


async def completed(attempt: Attempt) -> None:
    async with attempt.completing():
        pass


async def effects(database: Database) -> list[int]:
    async with database.read() as connection:
        return [row[0] for row in await connection.execute(text("SELECT attempt FROM effects"))]


async def test_of_two_attempts_only_the_one_that_holds_the_lease_commits(
    database: Database, bus: MemoryBus, clock: Any
) -> None:
    jobs = Jobs(database, bus, clock)
    async with database.write() as tx:
        await tx.execute(text("CREATE TABLE effects (attempt INTEGER)"))
    job = await submit(jobs)
    attempts = []
    for _ in range(2):
        async with database.write() as tx:
            row = await jobstore.claim(tx, clock.now_ms(), 30_000, queue="q", kinds=("work",), worker="w")
        assert row is not None
        attempts.append(Attempt(row, database, clock))
        clock.advance(31)
        await jobs.rescue()

    async with database.write() as tx:
        third = await jobstore.claim(tx, clock.now_ms(), 30_000, queue="q", kinds=("work",), worker="w")
    assert third is not None
    attempts.append(Attempt(third, database, clock))

    async def complete(attempt: Attempt) -> bool:
        try:
            async with attempt.completing() as tx:
                await tx.execute(text("INSERT INTO effects VALUES (:n)"), {"n": attempt.job.attempt})
        except LeaseLost:
            return False
        return True

    assert await asyncio.gather(*(complete(attempt) for attempt in attempts)) == [False, False, True]
    assert await effects(database) == [3]
    assert [attempt.completed for attempt in attempts] == [False, False, True]
    assert (await seen(jobs, job)).crashes == 2
    assert not await complete(attempts[2])
    assert await effects(database) == [3]


async def test_what_is_written_with_the_completion_is_lost_with_it(jobs: Jobs, quick: None) -> None:
    async with jobs.database.write() as tx:
        await tx.execute(text("CREATE TABLE effects (attempt INTEGER)"))

    async def handle(attempt: Attempt) -> None:
        async with attempt.completing() as tx:
            await tx.execute(text("INSERT INTO effects VALUES (:n)"), {"n": attempt.job.attempt})
            if attempt.job.attempt == 1:
                raise Unavailable("Something else is away.")

    async with working(jobs, handle):
        row = await ended(jobs, await submit(jobs), "done")
    assert row.failures == 1
    assert await effects(jobs.database) == [2]


async def test_a_fence_holds_other_writes_to_the_attempt(jobs: Jobs) -> None:
    job = await submit(jobs)
    attempt = Attempt(await abandoned(jobs, job), jobs.database, jobs.clock)
    async with jobs.database.write() as tx:
        await attempt.fence(tx)
        await tx.execute(update(table).values(lease_token="another"))
    with pytest.raises(LeaseLost):  # noqa: PT012 (the transaction is what raises)
        async with jobs.database.write() as tx:
            await tx.execute(update(table).values(priority=1))
            await attempt.fence(tx)
    assert (await seen(jobs, job)).priority == 100


async def test_at_an_embedded_start_every_lease_is_given_back(jobs: Jobs) -> None:
    job = await submit(jobs)
    await abandoned(jobs, job)
    assert await jobs.release_all() == 1
    row = await seen(jobs, job)
    assert (row.state, row.crashes, row.attempt) == ("queued", 0, 1)


async def test_the_last_crash_fails_the_job_and_says_why(jobs: Jobs) -> None:
    job = await submit(jobs)
    await abandoned(jobs, job)
    async with jobs.database.write() as tx:
        await tx.execute(update(table).values(crashes=jobstore.MAX_CRASHES, lease_until_ms=1))
    assert await jobs.rescue() == 1
    row = await seen(jobs, job)
    assert (row.state, row.crashes, row.errors[0]["code"]) == ("failed", jobstore.MAX_CRASHES + 1, "internal")


async def test_depths_counts_what_could_run_now(jobs: Jobs) -> None:
    now = jobs.clock.now_ms()
    await submit(jobs, run_at_ms=now - 5000)
    await submit(jobs)
    await submit(jobs, run_at_ms=now + 60_000)
    await submit(jobs, queue="later", run_at_ms=now + 60_000)
    found = await jobs.depths()
    assert found.keys() == {"q", "later"}
    assert found["later"] == (0, 0.0)
    count, age = found["q"]
    assert (count, await jobs.depth("q")) == (2, (2, pytest.approx(age, abs=1)))
    assert 5 <= age < 6


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_job_works_under_the_request_and_the_trace_that_it_was_submitted_for(jobs: Jobs) -> None:
    seen: list[dict[str, Any]] = []

    async def handle(attempt: Attempt) -> None:
        seen.append(dict(structlog.contextvars.get_contextvars()))

    async with working(jobs, handle):
        with structlog.contextvars.bound_contextvars(request_id="request-1", traceparent=TRACE):
            first = await submit(jobs)
        await ended(jobs, first, "done")
        second = await submit(jobs)
        await ended(jobs, second, "done")
    assert (seen[0]["request_id"], seen[0]["traceparent"], seen[0]["job"]) == ("request-1", TRACE, first)
    assert seen[1]["job"] == second
    assert seen[1]["traceparent"] != TRACE
    assert trace.traceparent(seen[1]["traceparent"]) == seen[1]["traceparent"]
