"""Resumable uploads (tus 1.0.0) and the source bytes of films."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from streamgate.contracts.metadata import AssetDeleted, Catalog
from streamgate.contracts.upload import Uploads, UploadWanted
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.upload.settings import UploadSettings
from streamgate.ports.bus import Bus
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.site import Site


@asynccontextmanager
async def setup(context: Context[UploadSettings]) -> AsyncGenerator[Parts, None]:
    """Start uploads."""
    from streamgate.plugins.upload.http import TusVersion, controllers
    from streamgate.plugins.upload.service import UploadService
    from streamgate.runtime.background import beside

    settings = context.settings
    service = UploadService(
        settings=settings,
        database=context.need(Database),
        bus=context.need(Bus),
        outbox=context.need(Outbox),
        jobs=context.need(Jobs),
        blobs=context.need(BlobStore),
        catalog=context.need(Catalog),
        clock=context.need(Clock),
    )
    uploads: Uploads = service
    async with (
        context.need(Schedules).every(settings.sweep_s, service.sweep, name="upload sweep", at_once=True),
        beside(service.drain(context.draining), name="upload hand-over"),
    ):
        yield Parts(
            provides={Uploads: uploads},
            routes=controllers(service, context.need(Site), settings),
            middleware=(partial(TusVersion, max_size=settings.max_size),),
            listens={AssetDeleted: service.asset_deleted, UploadWanted: service.wanted},
            health=service.health,
        )


plugin = Plugin(
    name="upload",
    settings=UploadSettings,
    setup=setup,
    requires=(Database, Schedules, Bus, Outbox, Jobs, BlobStore, Site, Clock, Catalog),
    provides=(Uploads,),
)
