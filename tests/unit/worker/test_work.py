"""Jobs as people see them, what may be done to them, and what the worker forgets and measures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, update

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.contracts.declare import fact
from streamgate.contracts.worker import JobQuery, Work
from streamgate.domain.clock import Clock
from streamgate.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated, ValidationFailed
from streamgate.domain.identity import ANONYMOUS, Caller, Prefix, Role, new_id
from streamgate.kernel import Context, LoopbackBinding
from streamgate.plugins.worker.http import controllers
from streamgate.plugins.worker.plugin import plugin
from streamgate.plugins.worker.service import Upkeep, WorkService
from streamgate.plugins.worker.settings import WorkerSettings
from streamgate.runtime.database import Database
from streamgate.runtime.http import api
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.tables import jobs as table
from streamgate.runtime.tables import outbox as outbox_table
from streamgate.runtime.telemetry import Metrics
from tests.support.clock import FakeClock

OWNER = Caller(account="eip155:1:0xaa", role=Role.CREATOR)
OTHER = Caller(account="eip155:1:0xbb", role=Role.CREATOR)
VIEWER = Caller(account="eip155:1:0xaa", role=Role.VIEWER)
ADMIN = Caller(account="admin", role=Role.ADMIN)


class Payload(msgspec.Struct):
    n: int = 0


@fact("film.swept")
class Swept(msgspec.Struct, frozen=True):
    n: int


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        yield bus


@pytest.fixture
def jobs(database: Database, bus: MemoryBus, clock: FakeClock) -> Jobs:
    return Jobs(database, bus, clock)


@pytest.fixture
def work(jobs: Jobs, database: Database, clock: FakeClock) -> Any:
    return LoopbackBinding()(Work, WorkService(jobs, Schedules(database, clock, "worker")))


async def submit(jobs: Jobs, owner: str | None = OWNER.account, **more: Any) -> str:
    async with jobs.database.write() as tx:
        return await jobs.submit(tx, "encode", Payload(), **({"queue": "q", "owner": owner} | more))


async def become(jobs: Jobs, job_id: str, **values: Any) -> None:
    async with jobs.database.write() as tx:
        await tx.execute(update(table).where(table.c.id == job_id).values(**values))


async def test_owners_see_their_own_jobs_and_an_administrator_sees_all(jobs: Jobs, work: Any) -> None:
    mine, theirs, nobodys = await submit(jobs), await submit(jobs, OTHER.account), await submit(jobs, None)
    assert {job.id for job in (await work.list(OWNER, JobQuery())).items} == {mine}
    assert {job.id for job in (await work.list(ADMIN, JobQuery())).items} == {mine, theirs, nobodys}
    assert (await work.get(OWNER, mine)).owner == OWNER.account
    assert (await work.get(ADMIN, nobodys)).owner is None


async def test_who_may_not_manage_a_job_learns_nothing_of_it(jobs: Jobs, work: Any) -> None:
    foreign, nobodys = await submit(jobs, OTHER.account), await submit(jobs, None)
    for job_id in (foreign, nobodys, new_id(Prefix.JOB), "job_", "../x"):
        for call in (work.get, work.retry, work.cancel):
            with pytest.raises(NotFound):
                await call(OWNER, job_id)
    assert (await work.get(ADMIN, foreign)).state == "queued"


@pytest.mark.parametrize(("caller", "refusal"), [(ANONYMOUS, Unauthenticated), (VIEWER, Forbidden)])
async def test_jobs_are_for_creators(jobs: Jobs, work: Any, caller: Caller, refusal: type[Exception]) -> None:
    job_id = await submit(jobs)
    for call in (work.list(caller, JobQuery()), *(m(caller, job_id) for m in (work.get, work.retry, work.cancel))):
        with pytest.raises(refusal):
            await call


async def test_pages_follow_each_other_and_hold_every_job_once(jobs: Jobs, work: Any) -> None:
    ids = {await submit(jobs) for _ in range(7)}
    found, cursor, pages = [], None, 0
    while True:
        page = await work.list(OWNER, JobQuery(limit=3, cursor=cursor))
        found += [job.id for job in page.items]
        pages, cursor = pages + 1, page.next_cursor
        if cursor is None:
            break
    assert (pages, len(found), set(found)) == (3, 7, ids)
    assert found == sorted(found, reverse=True)


async def test_lists_are_narrowed_by_state_kind_and_subject(jobs: Jobs, work: Any) -> None:
    plain, about, failed = await submit(jobs), await submit(jobs, subject="ast_1"), await submit(jobs)
    await become(jobs, failed, state="failed", kind="probe")
    for query, expected in (
        (JobQuery(subject="ast_1"), {about}),
        (JobQuery(state="failed"), {failed}),
        (JobQuery(kind="encode"), {plain, about}),
        (JobQuery(kind="encode", state="failed"), set()),
    ):
        assert {job.id for job in (await work.list(OWNER, query)).items} == expected


@pytest.mark.parametrize(
    "query", [JobQuery(limit=0), JobQuery(limit=101), JobQuery(cursor="ast_1"), JobQuery(cursor="")]
)
async def test_a_query_that_makes_no_sense_is_refused(work: Any, query: JobQuery) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await work.list(OWNER, query)
    assert refused.value.errors


async def test_a_failed_job_is_run_again_and_shows_why_it_failed_until_then(
    jobs: Jobs, work: Any, clock: FakeClock
) -> None:
    job_id = await submit(jobs)
    error = [{"code": "timeout", "detail": "Too slow.", "at_ms": clock.now_ms(), "attempt": 1}]
    await become(
        jobs, job_id, state="failed", failures=6, errors=msgspec.json.encode(error).decode(), finished_ms=clock.now_ms()
    )
    shown = await work.get(OWNER, job_id)
    assert [(e.code, e.detail) for e in shown.errors] == [("timeout", "Too slow.")]
    again = await work.retry(OWNER, job_id)
    assert (again.state, again.failures, again.errors, again.finished_at) == ("queued", 0, (), None)
    with pytest.raises(Conflict):
        await work.retry(OWNER, job_id)


async def test_a_job_whose_work_another_one_does_is_not_run_again(jobs: Jobs, work: Any) -> None:
    old = await submit(jobs, key="ingest:1")
    await work.cancel(OWNER, old)
    await submit(jobs, key="ingest:1")
    with pytest.raises(Conflict, match="Another job"):
        await work.retry(OWNER, old)


async def test_cancelling_is_idempotent_and_too_late_once_it_is_over(jobs: Jobs, work: Any) -> None:
    job_id = await submit(jobs)
    for _ in range(2):
        assert (await work.cancel(OWNER, job_id)).state == "canceled"
    running = await submit(jobs)
    await become(jobs, running, state="running", lease_token="t", lease_until_ms=1)
    assert (await work.cancel(OWNER, running)).state == "running"
    for state in ("done", "failed"):
        await become(jobs, running, state=state)
        with pytest.raises(Conflict):
            await work.cancel(OWNER, running)


class Bearer:
    async def caller(self, authorization: str | None) -> Caller:
        return {None: ANONYMOUS, "owner": OWNER, "viewer": VIEWER, "admin": ADMIN}[authorization]


async def test_the_routes_give_what_the_contract_says(jobs: Jobs, work: Any) -> None:
    first, second = await submit(jobs), await submit(jobs)
    transport = httpx.ASGITransport(app=api(controllers(work), Bearer()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        as_owner = {"authorization": "owner"}
        page = (await http.get("/api/v1/jobs", params={"limit": 1, "state": "queued"}, headers=as_owner)).json()
        assert [item["id"] for item in page["items"]] == [max(first, second)]
        rest = await http.get("/api/v1/jobs", params={"cursor": page["next_cursor"]}, headers=as_owner)
        assert [item["id"] for item in rest.json()["items"]] == [min(first, second)]
        one = await http.get(f"/api/v1/jobs/{first}", headers=as_owner)
        assert one.json()["created_at"].endswith("Z")
        canceled = await http.post(f"/api/v1/jobs/{first}/cancel", headers=as_owner)
        assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
        retried = await http.post(f"/api/v1/jobs/{first}/retry", headers=as_owner)
        assert (retried.status_code, retried.json()["state"]) == (200, "queued")
        assert (await http.post(f"/api/v1/jobs/{first}/retry", headers=as_owner)).status_code == 409
        assert (await http.get("/api/v1/jobs/job_x", headers=as_owner)).status_code == 404
        assert (await http.get("/api/v1/jobs", params={"state": "odd"}, headers=as_owner)).status_code == 422
        assert (await http.get("/api/v1/jobs")).status_code == 401
        assert (await http.get("/api/v1/jobs", headers={"authorization": "viewer"})).status_code == 403


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def upkeep(jobs: Jobs, bus: MemoryBus, clock: FakeClock, registry: CollectorRegistry) -> Upkeep:
    settings = WorkerSettings(job_retention_s=100, fact_retention_s=7200, late_after_s=60)
    return Upkeep(jobs, Outbox(jobs.database, bus, clock), clock, settings, registry)


async def test_a_sweep_forgets_what_is_over_for_long_enough_and_keeps_failed_jobs(
    jobs: Jobs, upkeep: Upkeep, clock: FakeClock
) -> None:
    now = clock.now_ms()
    ids = {}
    for state, age_s in (("done", 101), ("canceled", 101), ("failed", 101), ("done", 99), ("queued", 999)):
        ids[state, age_s] = await submit(jobs)
        await become(
            jobs, ids[state, age_s], state=state, finished_ms=now - age_s * 1000 if state != "queued" else None
        )
    async with jobs.database.write() as tx:
        for n, age_s in enumerate((7201, 7199, None)):
            delivered = None if age_s is None else now - age_s * 1000
            await tx.execute(
                insert(outbox_table).values(
                    id=f"evt_{n}",
                    subject="s",
                    payload=b"",
                    headers="{}",
                    created_ms=1,
                    next_ms=1,
                    delivered_ms=delivered,
                )
            )
    await upkeep.sweep()
    left = {job.id for job in await jobs.find()}
    assert left == {ids["failed", 101], ids["done", 99], ids["queued", 999]}
    async with jobs.database.read() as connection:
        assert [row.id for row in await connection.execute(outbox_table.select())] == ["evt_1", "evt_2"]


async def test_health_is_degraded_while_work_or_facts_wait_too_long(
    jobs: Jobs, bus: MemoryBus, upkeep: Upkeep, clock: FakeClock
) -> None:
    assert {name: check.status for name, check in (await upkeep.health()).items()} == {"queues": "ok", "outbox": "ok"}
    await submit(jobs)
    async with jobs.database.write() as tx:
        await Outbox(jobs.database, bus, clock).announce(tx, Swept(1))
    clock.advance(59)
    assert {check.status for check in (await upkeep.health()).values()} == {"ok"}
    clock.advance(2)
    checks = await upkeep.health()
    assert {name: check.status for name, check in checks.items()} == {"queues": "degraded", "outbox": "degraded"}
    assert "q: 1 jobs wait, the oldest for 61 s" in checks["queues"].detail


async def test_measures_show_each_queue_and_fall_back_to_nothing(
    jobs: Jobs, upkeep: Upkeep, clock: FakeClock, registry: CollectorRegistry
) -> None:
    job_id = await submit(jobs)
    await submit(jobs)
    clock.advance(5)
    await upkeep.measure()
    assert registry.get_sample_value("sg_jobs_runnable", {"queue": "q"}) == 2
    assert registry.get_sample_value("sg_job_oldest_runnable_age_seconds", {"queue": "q"}) == 5
    assert registry.get_sample_value("sg_outbox_undelivered") == 0
    async with jobs.database.write() as tx:
        await tx.execute(table.delete())
    await upkeep.measure()
    assert registry.get_sample_value("sg_jobs_runnable", {"queue": "q"}) == 0
    assert job_id


async def test_the_plugin_sweeps_at_its_start_and_stops_cleanly(jobs: Jobs, bus: MemoryBus, clock: FakeClock) -> None:
    outbox, metrics = Outbox(jobs.database, bus, clock), Metrics("worker", "1")
    schedules = Schedules(jobs.database, clock, "worker")
    needs: dict[type, object] = {Jobs: jobs, Outbox: outbox, Clock: clock, Metrics: metrics}
    needs |= {Database: jobs.database, Schedules: schedules}
    old = await submit(jobs)
    await become(jobs, old, state="done", finished_ms=1)
    async with plugin.setup(Context("worker", WorkerSettings(), needs, asyncio.Event())) as parts:
        async with asyncio.timeout(5):
            while await jobs.get(old) is not None:
                await asyncio.sleep(0.005)
        assert parts.health is not None
        assert (await parts.health())["queues"].status == "ok"
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("sweep", "measuring"))]
