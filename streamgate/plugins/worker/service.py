"""Looking after jobs: showing, running again, canceling, forgetting; and how far behind the queues are."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry, Gauge

from streamgate.contracts.worker import Job, JobError, JobPage, JobQuery, Schedule, SchedulePage
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import Conflict, NotFound, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id
from streamgate.kernel import Check
from streamgate.plugins.worker.settings import WorkerSettings
from streamgate.runtime.jobs import JobRow, Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules

MAX_PAGE = 100


class WorkService:
    """Implements `contracts.worker.Work`. An owner sees the jobs that bear their account, an administrator every job."""

    def __init__(self, jobs: Jobs, schedules: Schedules) -> None:
        self._jobs = jobs
        self._schedules = schedules

    async def schedules(self, caller: Caller) -> SchedulePage:
        caller.require(Role.ADMIN)
        return SchedulePage(
            tuple(
                Schedule(
                    service=run.service,
                    name=run.name,
                    every_s=run.every_s,
                    runs=run.runs,
                    failures=run.failures,
                    last_started_at=instant(run.started_ms),
                    last_took_s=(run.finished_ms - run.started_ms) / 1000,
                    last_error=run.error,
                )
                for run in await self._schedules.all()
            )
        )

    async def list(self, caller: Caller, query: JobQuery) -> JobPage:
        caller.require(Role.CREATOR)
        if not 1 <= query.limit <= MAX_PAGE:
            raise ValidationFailed(f"limit must be from 1 to {MAX_PAGE}.").at("?limit")
        if query.cursor is not None and not is_id(query.cursor, Prefix.JOB):
            raise ValidationFailed("cursor must be what the page before named as next_cursor.").at("?cursor")
        if caller.account is None:
            return JobPage(items=())
        rows = await self._jobs.find(
            owner=None if caller.role is Role.ADMIN else caller.account,
            subject=query.subject,
            kind=query.kind,
            state=query.state,
            limit=query.limit + 1,
            before_id=query.cursor,
        )
        page = rows[: query.limit]
        more = page[-1].id if len(rows) > query.limit else None
        return JobPage(items=tuple(_view(row) for row in page), next_cursor=more)

    async def get(self, caller: Caller, job_id: str) -> Job:
        return _view(await self._managed(caller, job_id))

    async def retry(self, caller: Caller, job_id: str) -> Job:
        await self._managed(caller, job_id)
        async with self._jobs.database.write() as tx:
            done = await self._jobs.retry(tx, job_id)
        job = await self._managed(caller, job_id)
        if not done:
            if job.state in {"failed", "canceled"}:
                raise Conflict("Another job does this work already.")
            raise Conflict(f"Only a failed or canceled job can be run again; this one is {job.state}.")
        return _view(job)

    async def cancel(self, caller: Caller, job_id: str) -> Job:
        await self._managed(caller, job_id)
        async with self._jobs.database.write() as tx:
            await self._jobs.cancel(tx, job_id)
        job = await self._managed(caller, job_id)
        if job.state in {"done", "failed"}:
            raise Conflict(f"This job is {job.state} and cannot be canceled.")
        return _view(job)

    async def _managed(self, caller: Caller, job_id: str) -> JobRow:
        """The job, if it is the caller's to manage: nobody else learns that it exists."""
        caller.require(Role.CREATOR)
        job = await self._jobs.get(job_id) if is_id(job_id, Prefix.JOB) else None
        if job is None or not (caller.role is Role.ADMIN or (job.owner is not None and caller.owns(job.owner))):
            raise NotFound("There is no such job.")
        return job


def _view(job: JobRow) -> Job:
    return Job(
        id=job.id,
        kind=job.kind,
        queue=job.queue,
        state=job.state,  # type: ignore[arg-type]
        priority=job.priority,
        progress=job.progress,
        attempt=job.attempt,
        failures=job.failures,
        crashes=job.crashes,
        subject=job.subject,
        owner=job.owner,
        errors=tuple(JobError(code=e["code"], detail=e["detail"], at=instant(e["at_ms"])) for e in job.errors),
        created_at=instant(job.created_ms),
        run_at=instant(job.run_at_ms),
        started_at=None if job.started_ms is None else instant(job.started_ms),
        finished_at=None if job.finished_ms is None else instant(job.finished_ms),
    )


class Upkeep:
    """What the worker does by itself: forgetting what is over, and measuring what waits."""

    def __init__(
        self, jobs: Jobs, outbox: Outbox, clock: Clock, settings: WorkerSettings, registry: CollectorRegistry
    ) -> None:
        self._jobs = jobs
        self._outbox = outbox
        self._clock = clock
        self._settings = settings
        self._runnable = Gauge("sg_jobs_runnable", "Jobs that could run now.", ["queue"], registry=registry)
        self._job_age = Gauge(
            "sg_job_oldest_runnable_age_seconds",
            "Age of the oldest job that could run now.",
            ["queue"],
            registry=registry,
        )
        self._facts = Gauge("sg_outbox_undelivered", "Facts not delivered yet.", registry=registry)
        self._fact_age = Gauge(
            "sg_outbox_oldest_age_seconds", "Age of the oldest fact not delivered yet.", registry=registry
        )
        self._queues: set[str] = set()

    async def sweep(self) -> None:
        """Forget done and canceled jobs and delivered facts beyond their retention."""
        now = self._clock.now_ms()
        jobs = await self._jobs.delete_finished(now - int(self._settings.job_retention_s * 1000))
        facts = await self._outbox.delete_delivered(now - int(self._settings.fact_retention_s * 1000))
        if jobs or facts:
            structlog.get_logger().info("swept", jobs=jobs, facts=facts)

    async def measure(self) -> None:
        """Bring the metrics up to date."""
        depths = await self._jobs.depths()
        self._queues |= depths.keys()
        for queue in self._queues:
            count, age = depths.get(queue, (0, 0.0))
            self._runnable.labels(queue).set(count)
            self._job_age.labels(queue).set(age)
        waiting, age = await self._outbox.backlog()
        self._facts.set(waiting)
        self._fact_age.set(age)

    async def health(self) -> Mapping[str, Check]:
        """Degraded when the oldest runnable job or undelivered fact waits too long."""
        late = self._settings.late_after_s
        depths = await self._jobs.depths()
        slow = [
            f"{queue}: {count} jobs wait, the oldest for {age:.0f} s"
            for queue, (count, age) in sorted(depths.items())
            if age > late
        ]
        waits = {f"{queue}_runnable": float(count) for queue, (count, _) in depths.items()}
        waits |= {f"{queue}_oldest_s": round(oldest, 1) for queue, (_, oldest) in depths.items()}
        waiting, age = await self._outbox.backlog()
        facts = f"{waiting} facts wait, the oldest for {age:.0f} s" if waiting else ""
        return {
            "queues": Check("degraded" if slow else "ok", "; ".join(slow), waits),
            "outbox": Check(
                "degraded" if age > late else "ok", facts, {"waiting": float(waiting), "oldest_s": round(age, 1)}
            ),
        }
