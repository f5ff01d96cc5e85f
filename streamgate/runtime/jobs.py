"""Jobs: the SQL row *is* the job.

Submitting is a row in the caller's own transaction. Claiming is one atomic update that raises ``attempt`` before any work
begins; the lease token it writes fences every later write. A heartbeat renews the lease; a rescuer gives expired leases
back. ``attempt`` only fences; what ends a job for good is ``failures`` (reported errors) beyond `MAX_FAILURES` or
``crashes`` (expired leases) beyond `MAX_CRASHES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from streamgate.domain.clock import Clock
from streamgate.ports.bus import Bus
from streamgate.runtime.database import Database, Transaction

S = TypeVar("S", bound=msgspec.Struct)

LEASE_S = 30.0
HEARTBEAT_S = 10.0
POLL_S = 4.0
MAX_FAILURES = 5
MAX_CRASHES = 50


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
class JobRow:
    """A job as stored. States: queued, running, done, failed, canceled. Lower ``priority`` runs first."""

    id: str
    kind: str
    queue: str
    key: str | None
    state: str
    priority: int
    payload: bytes
    attempt: int
    failures: int
    crashes: int
    progress: float
    subject: str | None
    owner: str | None
    cancel_requested: bool
    errors: list[dict[str, Any]]
    created_ms: int
    run_at_ms: int
    started_ms: int | None
    finished_ms: int | None
    lease_token: str | None
    lease_until_ms: int | None
    worker: str | None


class Attempt:
    """A claimed job in the hands of its handler.

    The handler's task is cancelled when the lease is lost, the job is canceled, or the process stops beyond its grace
    time; its ``finally`` blocks end the work (and kill its child process). A handler that returns has done the job; one
    that must commit rows together with its completion uses `completing`.
    """

    job: JobRow

    def payload(self, kind: type[S]) -> S:
        """The payload given to `Jobs.submit`."""
        raise NotImplementedError

    async def progress(self, fraction: float) -> None:
        """Store how far the work is, 0 to 1. Raises `LeaseLost`."""
        raise NotImplementedError

    async def fence(self, tx: Transaction) -> None:
        """Hold the transaction to this attempt: raises `LeaseLost` (so that it rolls back) when the lease is not ours."""
        raise NotImplementedError

    def completing(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that completes the job with whatever else is written in it: all or nothing, fenced."""
        raise NotImplementedError


class Handler(Protocol):
    """Does one kind of job. Must be safe to run again from the start at any time."""

    async def __call__(self, attempt: Attempt) -> None: ...


class Jobs:
    """The job table of this database."""

    def __init__(self, database: Database, bus: Bus, clock: Clock, *, lease_s: float = LEASE_S, heartbeat_s: float = HEARTBEAT_S, poll_s: float = POLL_S) -> None:
        raise NotImplementedError

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
        """A new job in the caller's transaction; its id. Idle runners of ``queue`` are woken after the commit.

        While a job with the same ``key`` is queued or running no second one is made: its id is returned, and its
        priority becomes the more urgent of the two. ``subject`` is the id of what the job is about.
        """
        raise NotImplementedError

    async def get(self, job_id: str) -> JobRow | None: ...

    async def find(
        self, *, subject: str | None = None, kind: str | None = None, state: str | None = None,
        owner: str | None = None, limit: int = 50, before_id: str | None = None,
    ) -> list[JobRow]:
        """Newest first."""
        raise NotImplementedError

    async def cancel(self, tx: Transaction, job_id: str) -> bool:
        """Cancel: a queued job is ``canceled`` at once; a running one is told (at once in this process, else by its next
        heartbeat) and its handler's task cancelled. False when it was already done, failed or canceled."""
        raise NotImplementedError

    async def cancel_subject(self, tx: Transaction, subject: str, kinds: tuple[str, ...] | None = None) -> int:
        """`cancel` for every queued or running job about ``subject``."""
        raise NotImplementedError

    async def retry(self, tx: Transaction, job_id: str) -> bool:
        """Queue a failed or canceled job again, its failures and crashes forgotten; False in any other state."""
        raise NotImplementedError

    async def promote(self, tx: Transaction, job_id: str, priority: int) -> bool:
        """Make a queued job at least that urgent; False when it is not queued."""
        raise NotImplementedError

    async def release_all(self) -> int:
        """Give every lease back at once (no crash counted). Only for a process that holds the data directory alone, at start."""
        raise NotImplementedError

    async def depth(self, queue: str) -> tuple[int, float]:
        """Runnable jobs of the queue now, and the age in seconds of the oldest."""
        raise NotImplementedError

    def runner(
        self, queue: str, handlers: Mapping[str, Handler], *, slots: int, max_priority: int | None = None,
        grace_s: float = 10.0, drain: Any = None,
    ) -> AbstractAsyncContextManager[None]:
        """Work on the queue for as long as the block runs, ``slots`` jobs at a time.

        ``max_priority``: claim only jobs at least that urgent (a slot kept for what somebody waits for).
        ``drain``: an `asyncio.Event`; once set nothing more is claimed. On leaving, running handlers get ``grace_s`` to
        finish, then are cancelled and their jobs released (queued again, no failure counted).
        """
        raise NotImplementedError
