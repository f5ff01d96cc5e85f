"""Work, owned by the worker service: looking after jobs (submitting needs no contract: a row in one's own transaction)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from streamgate.contracts.declare import contract, user
from streamgate.domain.identity import Caller, Role

JobState = Literal["queued", "running", "done", "failed", "canceled"]


class JobError(msgspec.Struct, frozen=True):
    """One failed attempt: a stable code, a sentence, when."""

    code: str
    detail: str
    at: datetime


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as people see it. ``failed`` jobs are kept and can be run again."""

    id: str
    kind: str
    queue: str
    state: JobState
    priority: int
    progress: float
    attempt: int
    failures: int
    crashes: int
    subject: str | None
    owner: str | None
    errors: tuple[JobError, ...]
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobPage(msgspec.Struct, frozen=True):
    items: tuple[Job, ...]
    next_cursor: str | None = None


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``subject`` is the id of the thing that the job is about (an asset)."""

    state: JobState | None = None
    kind: str | None = None
    subject: str | None = None
    limit: int = 50
    cursor: str | None = None


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Periodic work of a service and its last run. ``last_error`` null when that succeeded; durations in seconds."""

    service: str
    name: str
    every_s: float
    runs: int
    failures: int
    last_started_at: datetime
    last_took_s: float
    last_error: str | None


class SchedulePage(msgspec.Struct, frozen=True):
    items: tuple[Schedule, ...]
    next_cursor: str | None = None


@contract(
    service="worker",
    routes=(
        "/api/v1/jobs",
        "/api/v1/jobs/{job_id}",
        "/api/v1/jobs/{job_id}/retry",
        "/api/v1/jobs/{job_id}/cancel",
        "/api/v1/schedules",
    ),
)
class Work(Protocol):
    """Jobs. Owners see their own; an administrator sees all."""

    @user(Role.CREATOR, "jobs:read")
    async def list(self, caller: Caller, query: JobQuery) -> JobPage:
        """Newest first."""
        ...

    @user(Role.CREATOR, "jobs:read")
    async def get(self, caller: Caller, job_id: str) -> Job:
        """`NotFound` unless the caller owns it."""
        ...

    @user(Role.CREATOR, "jobs:write")
    async def retry(self, caller: Caller, job_id: str) -> Job:
        """Run a failed or canceled job again, its failures forgotten; `Conflict` in any other state."""
        ...

    @user(Role.CREATOR, "jobs:write")
    async def cancel(self, caller: Caller, job_id: str) -> Job:
        """Cancel a job; a running one is told at its next heartbeat. Idempotent; `Conflict` once it is done or failed."""
        ...

    @user(Role.ADMIN, "system:read")
    async def schedules(self, caller: Caller) -> SchedulePage:
        """Sweeps and upkeep of every service of this installation, with their last runs."""
        ...
