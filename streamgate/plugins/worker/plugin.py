"""The worker: looks after jobs and forgets what is over."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.worker import Work
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.worker.settings import WorkerSettings
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.telemetry import Metrics

MEASURE_S = 15.0


@asynccontextmanager
async def setup(context: Context[WorkerSettings]) -> AsyncGenerator[Parts, None]:
    """Start the worker."""
    from streamgate.plugins.worker.http import controllers
    from streamgate.plugins.worker.service import Upkeep, WorkService
    from streamgate.runtime.background import every

    jobs, settings = context.need(Jobs), context.settings
    schedules = context.need(Schedules)
    service = WorkService(jobs, schedules)
    work: Work = service
    upkeep = Upkeep(jobs, context.need(Outbox), context.need(Clock), settings, context.need(Metrics).registry)
    async with (
        schedules.every(
            settings.sweep_interval_s, upkeep.sweep, name="sweep of finished jobs and delivered facts", at_once=True
        ),
        schedules.every(settings.database_interval_s, context.need(Database).upkeep, name="database upkeep"),
        every(MEASURE_S, upkeep.measure, name="measuring of queues", at_once=True),
    ):
        yield Parts(provides={Work: work}, routes=controllers(work), health=upkeep.health)


plugin = Plugin(
    name="worker",
    settings=WorkerSettings,
    setup=setup,
    requires=(Database, Schedules, Jobs, Outbox, Clock, Metrics),
    provides=(Work,),
)
