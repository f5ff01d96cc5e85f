"""Jobs: the SQL row *is* the job.

Submitting is a row in the caller's own transaction. Claiming is one atomic update that raises ``attempt`` before any work
begins; the lease token it writes fences every later write. A heartbeat renews the lease; a rescuer gives expired leases
back. ``attempt`` only fences; what ends a job for good is ``failures`` (reported errors) beyond `MAX_FAILURES` or
``crashes`` (expired leases) beyond `MAX_CRASHES`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import structlog

from streamgate.domain.clock import Clock
from streamgate.ports.bus import Bus, Message
from streamgate.runtime.database import Database, Transaction, after_commit
from streamgate.runtime.deferred import Deferred
from streamgate.runtime.jobbell import place
from streamgate.runtime.jobrow import MAX_CRASHES, MAX_FAILURES, JobRow
from streamgate.runtime.trace import carried

if TYPE_CHECKING:
    from streamgate.runtime import jobstore, tables
else:
    jobstore = Deferred("streamgate.runtime.jobstore")
    tables = Deferred("streamgate.runtime.tables")

__all__ = [
    "MAX_CRASHES",
    "MAX_FAILURES",
    "Attempt",
    "Handler",
    "JobRow",
    "Jobs",
    "LeaseLost",
    "PermanentFailure",
    "Snooze",
    "Wanted",
]

S = TypeVar("S", bound=msgspec.Struct)

LEASE_S = 30.0
HEARTBEAT_S = 10.0
POLL_S = 4.0


class PermanentFailure(Exception):
    """Raised by a handler: trying again cannot help. The job is ``failed`` at once, with this code and sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Snooze(Exception):
    """Raised by a handler: not now; run again after ``seconds``, without counting a failure."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class LeaseLost(Exception):
    """The job belongs to another attempt now (or was canceled): whatever this attempt would write is refused."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job for `Jobs.submit_many`; its arguments are those of `Jobs.submit`."""

    kind: str
    payload: msgspec.Struct
    key: str
    priority: int


class Attempt:
    """A claimed job in the hands of its handler.

    The handler's task is cancelled when the lease is lost, the job is canceled, or the process stops beyond its grace
    time; its ``finally`` blocks end the work (and kill its child process). A handler that returns has done the job; one
    that must commit rows together with its completion uses `completing`. ``lets_go``: see `let_go`.
    """

    def __init__(self, job: JobRow, database: Database, clock: Clock) -> None:
        self.job = job
        self.completed = False
        self.lets_go = asyncio.Event()
        self._token = job.lease_token or ""
        self._database = database
        self._clock = clock

    def payload(self, kind: type[S]) -> S:
        """The payload given to `Jobs.submit`."""
        return msgspec.msgpack.decode(self.job.payload, type=kind)

    def let_go(self) -> None:
        """What is left to do of this job hardly works: its slot may take the next one meanwhile, and one only."""
        self.lets_go.set()

    async def progress(self, fraction: float) -> None:
        """Store how far the work is, 0 to 1. Raises `LeaseLost`."""
        async with self._database.write() as tx:
            if not await jobstore.progress(tx, self.job.id, self._token, fraction):
                raise LeaseLost(self.job.id)

    async def fence(self, tx: Transaction) -> None:
        """Hold the transaction to this attempt: raises `LeaseLost` (so that it rolls back) when the lease is not ours."""
        if not await jobstore.held(tx, self.job.id, self._token):
            raise LeaseLost(self.job.id)

    @asynccontextmanager
    async def completing(self) -> AsyncIterator[Transaction]:
        """A transaction that completes the job with whatever else is written in it: all or nothing, fenced."""
        async with self._database.write() as tx:
            if not await jobstore.complete(tx, self.job.id, self._token, self._clock.now_ms()):
                raise LeaseLost(self.job.id)
            yield tx
        self.completed = True


class Handler(Protocol):
    """Does one kind of job. Must be safe to run again from the start at any time."""

    async def __call__(self, attempt: Attempt) -> None: ...


class Jobs:
    """The job table of this database."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        *,
        lease_s: float = LEASE_S,
        heartbeat_s: float = HEARTBEAT_S,
        poll_s: float = POLL_S,
    ) -> None:
        self.database = database
        self.bus = bus
        self.clock = clock
        self.lease_s = lease_s
        self.heartbeat_s = heartbeat_s
        self.poll_s = poll_s
        self.running: dict[str, asyncio.Task[None]] = {}
        """Handlers at work in this process, by job id."""
        self._hints: set[asyncio.Task[None]] = set()

    async def submit(
        self,
        tx: Transaction,
        kind: str,
        payload: msgspec.Struct,
        *,
        queue: str,
        key: str | None = None,
        priority: int = 100,
        run_at_ms: int | None = None,
        owner: str | None = None,
        subject: str | None = None,
    ) -> str:
        """A new job in the caller's transaction; its id. An idle runner of ``queue`` is woken after the commit.

        While a job with the same ``key`` is queued or running no second one is made: its id is returned, and its
        priority becomes the more urgent of the two. ``subject`` is the id of what the job is about. The request id and the trace
        context at hand go along, and are those of whoever runs it.
        """
        now = self.clock.now_ms()
        job_id, _ = await jobstore.submit(
            tx,
            now,
            kind=kind,
            queue=queue,
            key=key,
            priority=priority,
            payload=msgspec.msgpack.encode(payload),
            run_at_ms=now if run_at_ms is None else run_at_ms,
            owner=owner,
            subject=subject,
            headers=json.dumps(carried()),
        )
        after_commit(tx, lambda: self._ring(queue))
        return job_id

    async def submit_many(
        self,
        tx: Transaction,
        wanted: Iterable[Wanted],
        *,
        queue: str,
        owner: str | None = None,
        subject: str | None = None,
    ) -> None:
        """Many jobs in one statement. Where a job with that key is queued or running, nothing is made and nothing changed."""
        rows = [
            {
                "kind": one.kind,
                "key": one.key,
                "priority": one.priority,
                "payload": msgspec.msgpack.encode(one.payload),
            }
            for one in wanted
        ]
        await jobstore.submit_many(tx, self.clock.now_ms(), rows, queue=queue, owner=owner, subject=subject)
        after_commit(tx, lambda: self._ring(queue))

    async def live(self, subject: str, key_prefix: str) -> list[JobRow]:
        """The queued and running jobs about ``subject`` whose keys begin so, running ones first."""
        async with self.database.read() as connection:
            return await jobstore.live(connection, subject, key_prefix)

    async def get(self, job_id: str) -> JobRow | None:
        """One job; None when there is none."""
        async with self.database.read() as connection:
            return await jobstore.get(connection, job_id)

    async def find(
        self,
        *,
        subject: str | None = None,
        kind: str | None = None,
        state: str | None = None,
        owner: str | None = None,
        limit: int = 50,
        before_id: str | None = None,
    ) -> list[JobRow]:
        """Newest first."""
        async with self.database.read() as connection:
            return await jobstore.find(
                connection, limit=limit, before_id=before_id, subject=subject, kind=kind, state=state, owner=owner
            )

    async def cancel(self, tx: Transaction, job_id: str) -> bool:
        """Cancel: a queued job is ``canceled`` at once; a running one is told (at once in this process, else by its next
        heartbeat) and its handler's task cancelled. False when it was already done, failed or canceled."""
        ids = await jobstore.cancel(tx, self.clock.now_ms(), tables.jobs.c.id == job_id)
        self._stop_after_commit(tx, ids)
        return bool(ids)

    async def cancel_subject(self, tx: Transaction, subject: str, kinds: tuple[str, ...] | None = None) -> int:
        """`cancel` for every queued or running job about ``subject``."""
        which = tables.jobs.c.subject == subject
        if kinds is not None:
            which &= tables.jobs.c.kind.in_(kinds)
        ids = await jobstore.cancel(tx, self.clock.now_ms(), which)
        self._stop_after_commit(tx, ids)
        return len(ids)

    async def retry(self, tx: Transaction, job_id: str) -> bool:
        """Queue a failed or canceled job again, its failures and crashes forgotten; False in any other state, or when
        another live job has its key."""
        found = await jobstore.retry(tx, job_id, self.clock.now_ms())
        if found:
            row = await jobstore.get(tx, job_id)
            if row is not None:
                after_commit(tx, lambda: self._ring(row.queue))
        return found

    async def promote(self, tx: Transaction, job_id: str, priority: int) -> bool:
        """Make a queued job at least that urgent; False when it is not queued. One that waits for its time still does."""
        found = await jobstore.promote(tx, job_id, priority)
        if found:
            row = await jobstore.get(tx, job_id)
            if row is not None:
                after_commit(tx, lambda: self._ring(row.queue))
        return found

    async def defer(self, tx: Transaction, key: str, priority: int) -> bool:
        """Make the live job with this key no more urgent than that, whether it is queued or running; False when there is none."""
        return await jobstore.defer(tx, key, priority)

    async def outranked(self, job_id: str, priority: int) -> bool:
        """Whether the job is less urgent than ``priority`` by now while one of its queue that is not could run at once."""
        async with self.database.read() as connection:
            return await jobstore.outranked(connection, job_id, priority, self.clock.now_ms())

    async def release_all(self) -> int:
        """Give every lease back at once (no crash counted). Only for a process that holds the data directory alone, at
        start."""
        async with self.database.write() as tx:
            return await jobstore.release_all(tx, self.clock.now_ms())

    async def rescue(self) -> int:
        """Give expired leases back; how many there were. Every runner does this a few times per lease."""
        async with self.database.write() as tx:
            rescued = await jobstore.rescue(tx, self.clock.now_ms())
        for job in rescued:
            structlog.get_logger().warning(
                "job rescued", job=job.id, kind=job.kind, state=job.state, crashes=job.crashes
            )
            self._ring(job.queue)
        return len(rescued)

    async def depth(self, queue: str) -> tuple[int, float]:
        """Runnable jobs of the queue now, and the age in seconds of the oldest."""
        async with self.database.read() as connection:
            return await jobstore.depth(connection, queue, self.clock.now_ms())

    async def depths(self) -> dict[str, tuple[int, float]]:
        """`depth` of every queue that has a queued or running job, by its name."""
        async with self.database.read() as connection:
            return await jobstore.depths(connection, self.clock.now_ms())

    async def delete_finished(self, before_ms: int) -> int:
        """Forget done and canceled jobs that ended before ``before_ms``; failed ones are kept. How many there were."""
        async with self.database.write() as tx:
            return await jobstore.delete_finished(tx, before_ms)

    def runner(
        self,
        queue: str,
        handlers: Mapping[str, Handler],
        *,
        slots: int,
        max_priority: int | None = None,
        grace_s: float = 10.0,
        drain: asyncio.Event | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Work on the queue for as long as the block runs, ``slots`` jobs at a time.

        ``max_priority``: claim only jobs at least that urgent (a slot kept for what somebody waits for).
        ``drain``: once set nothing more is claimed. On leaving, running handlers get ``grace_s`` to finish, then are
        cancelled and their jobs released (queued again, no failure counted).
        """
        from streamgate.runtime.jobrunner import Runner

        return Runner(self, queue, handlers, slots, max_priority, grace_s, drain).working()

    def _ring(self, queue: str) -> None:
        hint = asyncio.get_running_loop().create_task(self.bus.signal(Message(place(queue), b"")))
        self._hints.add(hint)
        hint.add_done_callback(self._hints.discard)

    def _stop_after_commit(self, tx: Transaction, ids: list[str]) -> None:
        def stop() -> None:
            for job_id in ids:
                task = self.running.get(job_id)
                if task is not None:
                    task.cancel("canceled")

        after_commit(tx, stop)
