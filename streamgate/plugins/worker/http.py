"""Routes of the worker."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from streamgate.contracts.worker import Job, JobPage, JobQuery, JobState, SchedulePage, Work
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm

Limit = Annotated[int, QueryParameter(name="limit", description="Items on a page, 1 to 100.")]
Cursor = Annotated[str | None, QueryParameter(name="cursor", description="What the page before named as next_cursor.")]
State = Annotated[JobState | None, QueryParameter(name="state", description="Only jobs in this state.")]
Kind = Annotated[str | None, QueryParameter(name="kind", description="Only jobs of this kind.")]
Subject = Annotated[
    str | None, QueryParameter(name="subject", description="Only jobs about this thing: an asset's id.")
]


def controllers(work: Work) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class JobController(Controller):
        path = "/api/v1/jobs"
        tags = ("jobs",)
        opt = realm("jobs")

        @get("/", opt=least(Role.CREATOR), operation_id="listJobs", summary="List jobs")
        async def listing(
            self,
            caller: NamedDependency[Caller],
            limit: Limit = 50,
            cursor: Cursor = None,
            in_state: State = None,
            kind: Kind = None,
            subject: Subject = None,
        ) -> JobPage:
            """Newest first: the caller's own; an administrator sees all."""
            return await work.list(
                caller, JobQuery(state=in_state, kind=kind, subject=subject, limit=limit, cursor=cursor)
            )

        @get("/{job_id:str}", opt=least(Role.CREATOR), operation_id="getJob", summary="Read a job")
        async def read(self, caller: NamedDependency[Caller], job_id: FromPath[str]) -> Job:
            """The job; 404 unless the caller owns it."""
            return await work.get(caller, job_id)

        @post(
            "/{job_id:str}/retry",
            opt=least(Role.CREATOR),
            operation_id="retryJob",
            summary="Run a job again",
            status_code=200,
        )
        async def retry(self, caller: NamedDependency[Caller], job_id: FromPath[str]) -> Job:
            """Queue a failed or canceled job again, its failures forgotten; 409 in any other state."""
            return await work.retry(caller, job_id)

        @post(
            "/{job_id:str}/cancel",
            opt=least(Role.CREATOR),
            operation_id="cancelJob",
            summary="Cancel a job",
            status_code=200,
        )
        async def cancel(self, caller: NamedDependency[Caller], job_id: FromPath[str]) -> Job:
            """Stop a queued or running job; a running one ends at its next heartbeat. 409 once it is done or failed."""
            return await work.cancel(caller, job_id)

    class ScheduleController(Controller):
        path = "/api/v1/schedules"
        tags = ("system",)
        opt = realm("system")

        @get("/", opt=least(Role.ADMIN), operation_id="listSchedules", summary="Periodic work and its last runs")
        async def listing(self, caller: NamedDependency[Caller]) -> SchedulePage:
            """Sweeps, retention and upkeep of every service."""
            return await work.schedules(caller)

    return [JobController, ScheduleController]
