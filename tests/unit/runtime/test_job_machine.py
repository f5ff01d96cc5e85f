"""The job table against a model of it: random histories with a clock that jumps."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamgate.runtime import jobstore
from streamgate.runtime.database import open_database
from streamgate.runtime.jobs import JobRow
from streamgate.runtime.tables import jobs as table
from tests.support.clock import FakeClock

LEASE_S = 30
AT_HAND = 3
FEW = 1
"""Failures and crashes allowed in the machine, instead of 5 and 50, so that it reaches the end of them."""

T = TypeVar("T")


@dataclass
class Modelled:
    """What a job is by the rules."""

    key: str | None
    priority: int
    run_at_ms: int
    state: str = "queued"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    token: str | None = None
    lease_until_ms: int = 0
    cancel_requested: bool = False
    errors: int = 0

    @property
    def live(self) -> bool:
        return self.state in {"queued", "running"}

    def end_attempt(self, state: str) -> None:
        self.state = "canceled" if self.cancel_requested and state == "queued" else state
        self.token = None


@dataclass
class Held:
    """A claimed job as a worker that may be long dead remembers it."""

    row: JobRow
    job_id: str = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        assert self.row.lease_token is not None
        self.job_id, self.token = self.row.id, self.row.lease_token


class JobMachine(RuleBasedStateMachine):
    """Each rule does one thing to the table and to the model; both must answer the same."""

    template: ClassVar[Path]
    numbers: ClassVar[Iterator[int]]

    def __init__(self) -> None:
        super().__init__()
        type(self).numbers = count()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        shutil.copy(self.template, Path(self.folder.name) / "jobs.db")
        self.stack = AsyncExitStack()
        url = f"sqlite+aiosqlite:///{self.folder.name}/jobs.db"
        self.database = self.run(self.stack.enter_async_context(open_database(url)))
        self.clock = FakeClock()
        self.model: dict[str, Modelled] = {}
        self.held: list[Held] = []
        self.attempts: dict[str, int] = {}
        self.tokens: set[str] = set()

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def write(self, operation: Any, *args: Any, **named: Any) -> Any:
        async def inside() -> Any:
            async with self.database.write() as tx:
                return await operation(tx, *args, **named)

        return self.run(inside())

    def rows(self) -> list[Any]:
        async def inside() -> Any:
            async with self.database.read() as connection:
                return (await connection.execute(table.select())).all()

        return list(self.run(inside()))

    def some(self, *states: str) -> bool:
        """Whether a job is in one of the states."""
        return any(job.state in states for job in self.model.values())

    def runnable(self, most: int | None = None) -> list[tuple[int, int, str]]:
        """What a claim may take, by priority, time and id."""
        return [
            (job.priority, job.run_at_ms, job_id)
            for job_id, job in self.model.items()
            if job.state == "queued" and job.run_at_ms <= self.clock.now_ms() and (most is None or job.priority <= most)
        ]

    def one_of(self, data: st.DataObject, things: list[T]) -> T:
        """One of the newest few, so that things happen to the same job again and again."""
        return things[-1 - data.draw(st.integers(0, min(len(things), AT_HAND) - 1))]

    def current(self, held: Held) -> Modelled | None:
        """The model's job while that worker's lease is the one that counts."""
        job = self.model[held.job_id]
        return job if job.state == "running" and job.token == held.token else None

    @initialize()
    def begin(self) -> None:
        assert self.rows() == []

    @precondition(lambda self: sum(job.live for job in self.model.values()) < AT_HAND)
    @rule(key=st.sampled_from([None, "a", "b"]), priority=st.integers(0, 3), later=st.sampled_from([0, 0, 0, 45]))
    def submit(self, key: str | None, priority: int, later: int) -> None:
        now = self.clock.now_ms()
        job_id, new = self.write(
            jobstore.submit,
            now,
            kind="work",
            queue="q",
            key=key,
            priority=priority,
            payload=b"",
            run_at_ms=now + later * 1000,
            owner=None,
            subject=None,
        )
        live = [i for i, job in self.model.items() if key is not None and job.key == key and job.live]
        assert new == (not live)
        if live:
            assert job_id == live[0]
            self.model[job_id].priority = min(self.model[job_id].priority, priority)
        else:
            self.model[job_id] = Modelled(key, priority, now + later * 1000)

    @precondition(lambda self: self.some("queued") and len(self.held) % 2)
    @rule(most=st.sampled_from([None, None, 1]))
    def claim(self, most: int | None) -> None:
        now = self.clock.now_ms()
        row = self.write(jobstore.claim, now, LEASE_S * 1000, queue="q", kinds=("work",), worker="w", max_priority=most)
        runnable = self.runnable(most)
        assert (None if row is None else row.id) == (min(runnable)[2] if runnable else None)
        if row is None:
            return
        assert row.lease_token not in self.tokens
        self.tokens.add(row.lease_token)
        job = self.model[row.id]
        job.state, job.token, job.lease_until_ms = "running", row.lease_token, now + LEASE_S * 1000
        job.attempt += 1
        self.held.append(Held(row))

    @precondition(lambda self: self.runnable())
    @rule()
    def claim_whatever_is_first(self) -> None:
        self.claim(None)

    @precondition(lambda self: self.runnable() and not self.some("running"))
    @rule()
    def claim_when_all_is_idle(self) -> None:
        self.claim(None)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        held = self.one_of(data, self.held)
        until = self.clock.now_ms() + LEASE_S * 1000
        job = self.current(held)
        going = job is not None and not job.cancel_requested
        assert self.write(jobstore.heartbeat, held.job_id, held.token, until) == going
        if job is not None and going:
            job.lease_until_ms = until

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fence(self, data: st.DataObject) -> None:
        held = self.one_of(data, self.held)
        ours = self.current(held) is not None
        assert self.write(jobstore.held, held.job_id, held.token) == ours
        assert self.write(jobstore.progress, held.job_id, held.token, 0.5) == ours

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        held = self.one_of(data, self.held)
        job = self.current(held)
        assert self.write(jobstore.complete, held.job_id, held.token, self.clock.now_ms()) == (job is not None)
        if job is not None:
            job.end_attempt("done")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), permanent=st.booleans(), backoff=st.sampled_from([0, 60]))
    def fail(self, data: st.DataObject, permanent: bool, backoff: int) -> None:
        held = self.one_of(data, self.held)
        now = self.clock.now_ms()
        state = self.write(
            jobstore.fail, held.row, now, code="internal", detail="x", permanent=permanent, backoff_s=backoff
        )
        job = self.current(held)
        if job is None:
            assert state is None
            return
        job.run_at_ms = now
        if not job.cancel_requested:
            job.failures += 1
            job.errors += 1
            job.run_at_ms = now + backoff * 1000
        job.end_attempt("failed" if not job.cancel_requested and (permanent or job.failures > FEW) else "queued")
        assert state == job.state

    @precondition(lambda self: self.held)
    @rule(data=st.data(), later=st.sampled_from([0, 20]))
    def release(self, data: st.DataObject, later: int) -> None:
        held = self.one_of(data, self.held)
        now = self.clock.now_ms()
        job = self.current(held)
        state = self.write(jobstore.release, held.job_id, held.token, now_ms=now, run_at_ms=now + later * 1000)
        if job is None:
            assert state is None
            return
        job.end_attempt("queued")
        job.run_at_ms = now + later * 1000
        assert state == job.state

    @precondition(lambda self: self.some("running"))
    @rule()
    def rescue(self) -> None:
        now = self.clock.now_ms()
        expired = {i for i, job in self.model.items() if job.state == "running" and job.lease_until_ms < now}
        assert {row.id for row in self.write(jobstore.rescue, now)} == expired
        for job_id in expired:
            job = self.model[job_id]
            job.crashes += 1
            failed = job.crashes > FEW and not job.cancel_requested
            job.errors += failed
            job.end_attempt("failed" if failed else "queued")
            job.run_at_ms = now

    @precondition(lambda self: self.some("running"))
    @rule()
    def a_worker_dies(self) -> None:
        self.clock.advance(LEASE_S + 1)
        self.rescue()

    @precondition(lambda self: self.some("running") and len(self.held) % 3 == 0)
    @rule()
    def restart(self) -> None:
        running = [job for job in self.model.values() if job.state == "running"]
        assert self.write(jobstore.release_all, self.clock.now_ms()) == len(running)
        for job in running:
            job.end_attempt("queued")
            job.run_at_ms = self.clock.now_ms()

    @precondition(lambda self: self.some("queued", "running") and self.clock.now_ms() % 2)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = self.one_of(data, list(self.model))
        job = self.model[job_id]
        found = self.write(jobstore.cancel, self.clock.now_ms(), table.c.id == job_id)
        assert found == ([job_id] if job.live else [])
        if job.live:
            job.cancel_requested = True
            job.state = "canceled" if job.state == "queued" else job.state

    @precondition(lambda self: self.some("failed", "canceled"))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = self.one_of(data, list(self.model))
        job = self.model[job_id]
        taken = job.key is not None and any(o.live and o.key == job.key for o in self.model.values())
        possible = job.state in {"failed", "canceled"} and not taken
        assert self.write(jobstore.retry, job_id, self.clock.now_ms()) == possible
        if possible:
            job.state, job.failures, job.crashes, job.errors = "queued", 0, 0, 0
            job.cancel_requested, job.run_at_ms = False, self.clock.now_ms()

    @precondition(lambda self: self.some("queued"))
    @rule(data=st.data(), priority=st.integers(0, 3))
    def promote(self, data: st.DataObject, priority: int) -> None:
        job_id = self.one_of(data, list(self.model))
        job = self.model[job_id]
        assert self.write(jobstore.promote, job_id, priority) == (job.state == "queued")
        if job.state == "queued":
            job.priority = min(job.priority, priority)

    @precondition(lambda self: self.some("queued", "running"))
    @rule(seconds=st.sampled_from([1, 9, 29, 31, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds + 0.001)

    @precondition(lambda self: self.some("running"))
    @rule(seconds=st.sampled_from([1, 40]))
    def the_clock_is_set_back(self, seconds: int) -> None:
        self.clock.advance(-seconds)

    @invariant()
    def the_table_is_as_modelled(self) -> None:
        rows = {row.id: row for row in self.rows()}
        assert rows.keys() == self.model.keys()
        live_keys = []
        for job_id, job in self.model.items():
            row = rows[job_id]
            assert (row.state, row.attempt, row.failures, row.crashes) == (
                job.state,
                job.attempt,
                job.failures,
                job.crashes,
            )
            assert (row.priority, row.run_at_ms, bool(row.cancel_requested)) == (
                job.priority,
                job.run_at_ms,
                job.cancel_requested,
            )
            assert row.errors.count('"code"') == job.errors
            running = row.state == "running"
            assert (row.lease_token, row.lease_until_ms) == (
                (job.token, job.lease_until_ms) if running else (None, None)
            )
            assert (row.worker is not None) == running
            assert (row.finished_ms is not None) == (not job.live)
            assert not (row.state == "queued" and row.cancel_requested)
            assert row.attempt >= self.attempts.get(job_id, 0)
            self.attempts[job_id] = row.attempt
            if job.live and row.key is not None:
                live_keys.append(row.key)
        assert len(live_keys) == len(set(live_keys))


def test_any_history_of_jobs_follows_the_rules(migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobstore, "MAX_FAILURES", FEW)
    monkeypatch.setattr(jobstore, "MAX_CRASHES", FEW)
    # ids in a fixed order, so that a history that was found can be replayed and made shorter
    monkeypatch.setattr(jobstore, "new_id", lambda prefix: f"{prefix.value}_{next(JobMachine.numbers):020}")
    JobMachine.template = migrated
    run_state_machine_as_test(
        JobMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
