"""The job table: every statement that changes a job, each one atomic, each later write fenced by the lease token.

Nothing here waits or runs anything; `runtime.jobs` does. Times come from the caller, so that one clock rules.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.domain.identity import Prefix, new_id
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobrow import MAX_CRASHES, MAX_FAILURES, JobRow
from streamgate.runtime.tables import LIVE, jobs

KEPT_ERRORS = 10
FIRST_BACKOFF_S = 2.0
LONGEST_BACKOFF_S = 300.0


def _job(row: Row[Any]) -> JobRow:
    values = dict(row._mapping)
    values["errors"] = json.loads(values["errors"])
    values["headers"] = json.loads(values["headers"])
    values["cancel_requested"] = bool(values["cancel_requested"])
    return JobRow(**values)


def _ours(job_id: str, token: str) -> ColumnElement[bool]:
    """The job, still running under this lease."""
    return and_(jobs.c.id == job_id, jobs.c.lease_token == token, jobs.c.state == "running")


_RELEASED: dict[str, Any] = {"lease_token": None, "lease_until_ms": None, "worker": None}


async def submit(tx: Transaction, now_ms: int, **values: Any) -> tuple[str, bool]:
    """Insert a job, or make the live one with its key as urgent; its id, and whether it is new."""
    dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
    job_id = new_id(Prefix.JOB)
    new = dialect.insert(jobs).values(id=job_id, state="queued", created_ms=now_ms, **values)
    if values["key"] is not None:
        new = new.on_conflict_do_nothing(index_elements=[jobs.c.key], index_where=LIVE)
    live = (jobs.c.key == values["key"], jobs.c.state.in_(("queued", "running")))
    while True:
        if (await tx.execute(new.returning(jobs.c.id))).first() is not None:
            return job_id, True
        urgent = case((jobs.c.priority > values["priority"], values["priority"]), else_=jobs.c.priority)
        found = (await tx.execute(update(jobs).where(*live).values(priority=urgent).returning(jobs.c.id))).scalar()
        if found is not None:
            return str(found), False


async def submit_many(tx: Transaction, now_ms: int, rows: Sequence[Mapping[str, Any]], **values: Any) -> None:
    """Insert a job for each of ``rows`` (its own columns; ``values`` are those of all) whose key no live job has."""
    dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
    common = {"state": "queued", "created_ms": now_ms, "run_at_ms": now_ms, **values}
    new = dialect.insert(jobs).on_conflict_do_nothing(index_elements=[jobs.c.key], index_where=LIVE)
    if rows:
        await tx.execute(new, [{"id": new_id(Prefix.JOB), **common, **row} for row in rows])


async def live(connection: AsyncConnection, subject: str, key_prefix: str) -> list[JobRow]:
    """The queued and running jobs about a subject whose keys begin so, running ones first."""
    query = (
        select(jobs)
        .where(jobs.c.subject == subject, jobs.c.state.in_(("queued", "running")))
        .where(jobs.c.key.startswith(key_prefix, autoescape=True))
        .order_by(jobs.c.state.desc(), jobs.c.id)
    )
    return [_job(row) for row in await connection.execute(query)]


def _queued(queue: str, kinds: tuple[str, ...], max_priority: int | None) -> ColumnElement[bool]:
    """The queued jobs that a runner of these kinds may take."""
    mine = and_(jobs.c.queue == queue, jobs.c.state == "queued", jobs.c.kind.in_(kinds))
    return mine if max_priority is None else and_(mine, jobs.c.priority <= max_priority)


async def claim(
    tx: Transaction,
    now_ms: int,
    lease_ms: int,
    *,
    queue: str,
    kinds: tuple[str, ...],
    worker: str,
    max_priority: int | None = None,
) -> JobRow | None:
    """Take the most urgent runnable job: it is running under a new lease, its attempt raised. None when there is none."""
    runnable = (_queued(queue, kinds, max_priority), jobs.c.run_at_ms <= now_ms)
    first: Select[Any] = (
        select(jobs.c.id).where(*runnable).order_by(jobs.c.priority, jobs.c.run_at_ms, jobs.c.id).limit(1)
    )
    if tx.dialect.name == "postgresql":
        first = first.with_for_update(skip_locked=True)
    row = (
        await tx.execute(
            update(jobs)
            .where(jobs.c.id.in_(first.scalar_subquery()))
            .values(
                state="running",
                attempt=jobs.c.attempt + 1,
                lease_token=secrets.token_hex(16),
                lease_until_ms=now_ms + lease_ms,
                worker=worker,
                started_ms=func.coalesce(jobs.c.started_ms, now_ms),
            )
            .returning(jobs)
        )
    ).first()
    return None if row is None else _job(row)


async def heartbeat(tx: Transaction, job_id: str, token: str, lease_until_ms: int) -> bool:
    """Renew a lease; False when it is lost or the job is to be canceled: stop now."""
    done = await tx.execute(
        update(jobs)
        .where(_ours(job_id, token), jobs.c.cancel_requested.is_(False))
        .values(lease_until_ms=lease_until_ms)
    )
    return done.rowcount == 1


async def progress(tx: Transaction, job_id: str, token: str, fraction: float) -> bool:
    """Store progress; False when the lease is lost."""
    done = await tx.execute(update(jobs).where(_ours(job_id, token)).values(progress=min(1.0, max(0.0, fraction))))
    return done.rowcount == 1


async def held(tx: Transaction, job_id: str, token: str) -> bool:
    """Whether the lease is ours, holding the row to it until the transaction ends."""
    done = await tx.execute(update(jobs).where(_ours(job_id, token)).values(lease_token=token))
    return done.rowcount == 1


async def complete(tx: Transaction, job_id: str, token: str, now_ms: int) -> bool:
    """Running → done; False when the lease is lost."""
    done = await tx.execute(
        update(jobs).where(_ours(job_id, token)).values(state="done", progress=1.0, finished_ms=now_ms, **_RELEASED)
    )
    return done.rowcount == 1


async def release(tx: Transaction, job_id: str, token: str, *, now_ms: int, run_at_ms: int) -> str | None:
    """Running → queued for ``run_at_ms``, nothing counted: the process stops, or the handler asked to come again later.
    ``canceled`` when that was asked. The new state; None when the lease is lost."""
    found = await tx.execute(
        update(jobs)
        .where(_ours(job_id, token))
        .values(
            state=case((jobs.c.cancel_requested.is_(True), "canceled"), else_="queued"),
            finished_ms=case((jobs.c.cancel_requested.is_(True), now_ms), else_=None),
            run_at_ms=run_at_ms,
            **_RELEASED,
        )
        .returning(jobs.c.state)
    )
    state: str | None = found.scalar()
    return state


async def fail(
    tx: Transaction, job: JobRow, now_ms: int, *, code: str, detail: str, permanent: bool, backoff_s: float
) -> str | None:
    """A reported error: queued again after ``backoff_s``, or ``failed`` for good; ``canceled`` (and no failure) when that
    was asked, since whatever a handler raises then is its way to stop. The new state; None when the lease is lost."""
    if job.lease_token is None:
        return None
    ours = _ours(job.id, job.lease_token)
    row = (await tx.execute(select(jobs).where(ours).with_for_update())).first()
    if row is None:
        return None
    now = _job(row)
    if now.cancel_requested:
        return await release(tx, job.id, job.lease_token, now_ms=now_ms, run_at_ms=now_ms)
    over = permanent or now.failures + 1 > MAX_FAILURES
    state = "failed" if over else "queued"
    await tx.execute(
        update(jobs)
        .where(ours)
        .values(
            state=state,
            failures=now.failures + 1,
            errors=_with_error(now, now_ms, code, detail),
            run_at_ms=now_ms + int(backoff_s * 1000),
            finished_ms=now_ms if over else None,
            **_RELEASED,
        )
    )
    return state


def _with_error(job: JobRow, now_ms: int, code: str, detail: str) -> str:
    """The job's errors and one more, as stored."""
    errors = [*job.errors, {"code": code, "detail": detail[:500], "at_ms": now_ms, "attempt": job.attempt}]
    return json.dumps(errors[-KEPT_ERRORS:])


async def rescue(tx: Transaction, now_ms: int) -> list[JobRow]:
    """Give expired leases back: queued with one more crash, canceled when that was asked, failed after too many."""
    expired = and_(jobs.c.state == "running", jobs.c.lease_until_ms < now_ms)
    state = case(
        (jobs.c.cancel_requested.is_(True), "canceled"), (jobs.c.crashes + 1 > MAX_CRASHES, "failed"), else_="queued"
    )
    ended = or_(jobs.c.cancel_requested.is_(True), jobs.c.crashes + 1 > MAX_CRASHES)
    found = await tx.execute(
        update(jobs)
        .where(expired)
        .values(
            state=state,
            crashes=jobs.c.crashes + 1,
            run_at_ms=now_ms,
            finished_ms=case((ended, now_ms), else_=None),
            **_RELEASED,
        )
        .returning(jobs)
    )
    rescued = [_job(row) for row in found.all()]
    for job in rescued:
        if job.state == "failed":
            errors = _with_error(job, now_ms, "internal", f"The worker died {job.crashes} times while doing this job.")
            await tx.execute(update(jobs).where(jobs.c.id == job.id).values(errors=errors))
    return rescued


async def release_all(tx: Transaction, now_ms: int) -> int:
    """Give every lease back at once; canceled where that was asked."""
    done = await tx.execute(
        update(jobs)
        .where(jobs.c.state == "running")
        .values(
            state=case((jobs.c.cancel_requested.is_(True), "canceled"), else_="queued"),
            finished_ms=case((jobs.c.cancel_requested.is_(True), now_ms), else_=None),
            run_at_ms=now_ms,
            **_RELEASED,
        )
    )
    return int(done.rowcount)


async def cancel(tx: Transaction, now_ms: int, which: ColumnElement[bool]) -> list[str]:
    """Queued → canceled; running → asked to cancel. The ids of both."""
    ended = await tx.execute(
        update(jobs)
        .where(which, jobs.c.state == "queued")
        .values(state="canceled", finished_ms=now_ms, cancel_requested=True)
        .returning(jobs.c.id)
    )
    asked = await tx.execute(
        update(jobs).where(which, jobs.c.state == "running").values(cancel_requested=True).returning(jobs.c.id)
    )
    return [row[0] for row in ended] + [row[0] for row in asked]


async def retry(tx: Transaction, job_id: str, now_ms: int) -> bool:
    """Failed or canceled → queued, its past forgotten, unless a live job has its key by now."""
    row = (await tx.execute(select(jobs).where(jobs.c.id == job_id).with_for_update())).first()
    if row is None or row.state not in {"failed", "canceled"}:
        return False
    if row.key is not None:
        other = select(jobs.c.id).where(jobs.c.key == row.key, jobs.c.state.in_(("queued", "running")))
        if (await tx.execute(other)).first() is not None:
            return False
    await tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            state="queued",
            failures=0,
            crashes=0,
            progress=0.0,
            cancel_requested=False,
            run_at_ms=now_ms,
            started_ms=None,
            finished_ms=None,
            errors="[]",
        )
    )
    return True


async def promote(tx: Transaction, job_id: str, priority: int) -> bool:
    """Make a queued job at least that urgent; False when it is not queued. A job that waits for its time still does."""
    done = await tx.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == "queued")
        .values(priority=case((jobs.c.priority > priority, priority), else_=jobs.c.priority))
    )
    return done.rowcount == 1


async def defer(tx: Transaction, key: str, priority: int) -> bool:
    """Make the live job with this key no more urgent than that; False when there is none."""
    done = await tx.execute(
        update(jobs)
        .where(jobs.c.key == key, jobs.c.state.in_(("queued", "running")))
        .values(priority=case((jobs.c.priority < priority, priority), else_=jobs.c.priority))
    )
    return done.rowcount == 1


async def outranked(connection: AsyncConnection, job_id: str, priority: int, now_ms: int) -> bool:
    """Whether a job is less urgent than ``priority`` while one of its queue that is not may run now."""
    other = jobs.alias()
    urgent = (other.c.queue == jobs.c.queue, other.c.state == "queued", other.c.priority <= priority)
    query = select(jobs.c.id).where(
        jobs.c.id == job_id,
        jobs.c.priority > priority,
        select(other.c.id).where(*urgent, other.c.run_at_ms <= now_ms).exists(),
    )
    return (await connection.execute(query)).first() is not None


async def get(connection: AsyncConnection, job_id: str) -> JobRow | None:
    """One job."""
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).first()
    return None if row is None else _job(row)


async def find(connection: AsyncConnection, *, limit: int, before_id: str | None, **equal: str | None) -> list[JobRow]:
    """Newest first; ``equal``: column → value, None for any."""
    query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    for name, value in equal.items():
        if value is not None:
            query = query.where(jobs.c[name] == value)
    if before_id is not None:
        query = query.where(jobs.c.id < before_id)
    return [_job(row) for row in await connection.execute(query)]


async def depth(connection: AsyncConnection, queue: str, now_ms: int) -> tuple[int, float]:
    """Runnable jobs, and the age in seconds of the oldest."""
    runnable = (jobs.c.queue == queue, jobs.c.state == "queued", jobs.c.run_at_ms <= now_ms)
    row = (await connection.execute(select(func.count(), func.min(jobs.c.run_at_ms)).where(*runnable))).one()
    return int(row[0]), 0.0 if row[1] is None else max(0.0, (now_ms - row[1]) / 1000)


async def depths(connection: AsyncConnection, now_ms: int) -> dict[str, tuple[int, float]]:
    """`depth` of every queue that has a live job, by name."""
    runnable = and_(jobs.c.state == "queued", jobs.c.run_at_ms <= now_ms)
    found = await connection.execute(
        select(jobs.c.queue, func.count(case((runnable, 1))), func.min(case((runnable, jobs.c.run_at_ms))))
        .where(jobs.c.state.in_(("queued", "running")))
        .group_by(jobs.c.queue)
    )
    return {
        queue: (int(count), 0.0 if oldest is None else max(0.0, (now_ms - oldest) / 1000))
        for queue, count, oldest in found
    }


async def next_due(
    connection: AsyncConnection, *, queue: str, kinds: tuple[str, ...], max_priority: int | None = None
) -> int | None:
    """When the next job that `claim` would take may run, in ms since the epoch; None when there is none."""
    found = await connection.execute(select(func.min(jobs.c.run_at_ms)).where(_queued(queue, kinds, max_priority)))
    value: int | None = found.scalar()
    return value


async def delete_finished(tx: Transaction, before_ms: int) -> int:
    """Forget done and canceled jobs that ended before ``before_ms``; failed ones are kept."""
    done = await tx.execute(delete(jobs).where(jobs.c.state.in_(("done", "canceled")), jobs.c.finished_ms < before_ms))
    return int(done.rowcount)
