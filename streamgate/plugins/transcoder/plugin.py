"""Encoding: plans films, makes their segments, keeps them in storage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.metadata import AssetDeleted, Catalog
from streamgate.contracts.transcoder import Transcoding
from streamgate.contracts.upload import Uploads
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.media.sandbox import Sandbox
from streamgate.plugins.transcoder.settings import TranscoderSettings
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.site import Site
from streamgate.runtime.telemetry import Metrics

MEASURE_S = 5.0
LOOK_AFTER_EVERY_S = 30.0
TELL_AGAIN_S = 2.0
COLD_EVERY_S = 3600.0


@asynccontextmanager
async def setup(context: Context[TranscoderSettings]) -> AsyncGenerator[Parts, None]:
    """Start the transcoder."""
    import asyncio
    import os
    import shutil

    from streamgate.plugins.transcoder.arrivals import Arrivals
    from streamgate.plugins.transcoder.cold import ColdLadders
    from streamgate.plugins.transcoder.counters import EncodeCounters
    from streamgate.plugins.transcoder.films import BEGINNING, QUEUE, Films
    from streamgate.plugins.transcoder.growing import AT_ONCE, GROWING, GROWING_QUEUE, GrowingFilms
    from streamgate.plugins.transcoder.http import controllers
    from streamgate.plugins.transcoder.queue import EncodeQueue
    from streamgate.plugins.transcoder.service import TranscodingService
    from streamgate.plugins.transcoder.work import TranscodeWork
    from streamgate.runtime.background import every

    settings, jobs, sandbox = context.settings, context.need(Jobs), context.need(Sandbox)
    catalog, blobs, outbox = context.need(Catalog), context.need(BlobStore), context.need(Outbox)
    arrivals, schedules, uploads = Arrivals(), context.need(Schedules), context.need(Uploads)
    films = Films(
        database=context.need(Database), jobs=jobs, catalog=catalog, arrivals=arrivals, clock=context.need(Clock)
    )
    scratch = context.need(Site).data_dir / "scratch" / "chunks"
    await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    counters = EncodeCounters(context.need(Metrics).registry)
    work = TranscodeWork(
        settings=settings,
        films=films,
        uploads=uploads,
        blobs=blobs,
        sandbox=sandbox,
        outbox=outbox,
        scratch=scratch,
        counters=counters,
    )
    slots, drain, grace = settings.workers or max(1, (os.cpu_count() or 1) // 4), context.draining, settings.grace_s
    queue, ladder, limits = EncodeQueue(jobs, sandbox, counters), work.ladder, work.limits
    service = TranscodingService(films=films, catalog=catalog, blobs=blobs, arrivals=arrivals, draining=drain)
    transcoding: Transcoding = service
    growing = GrowingFilms(films, uploads, blobs, sandbox, ladder, limits, settings, scratch, drain, work.scans)
    cold = ColdLadders(films=films, catalog=catalog, blobs=blobs, outbox=outbox, days=settings.cold_days)
    handlers = work.handlers() | films.handlers() | cold.handlers()

    async with (
        jobs.runner(QUEUE, handlers, slots=slots, grace_s=grace, drain=drain),
        jobs.runner(QUEUE, handlers, slots=1, max_priority=BEGINNING, grace_s=grace, drain=drain),
        jobs.runner(GROWING_QUEUE, {GROWING: growing.follow}, slots=AT_ONCE, grace_s=grace, drain=drain),
        schedules.every(LOOK_AFTER_EVERY_S, films.look_after, name="films without jobs", at_once=True),
        every(TELL_AGAIN_S, films.tell_again, name="reports that failed"),
        every(MEASURE_S, queue.measure, name="reading of the encoding queue", at_once=True),
        schedules.every(COLD_EVERY_S, cold.sweep, name="ladders that nobody watches", at_once=True),
    ):
        yield Parts(
            provides={Transcoding: transcoding},
            routes=controllers(transcoding),
            listens={AssetDeleted: service.asset_deleted},
            health=queue.health,
        )
        arrivals.all()


plugin = Plugin(
    name="transcoder",
    settings=TranscoderSettings,
    setup=setup,
    requires=(Database, Schedules, Jobs, Outbox, BlobStore, Sandbox, Site, Clock, Metrics, Catalog, Uploads),
    provides=(Transcoding,),
)
