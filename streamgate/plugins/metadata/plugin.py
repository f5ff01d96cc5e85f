"""The catalog: what films there are, who owns them, who may see them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.auth import Access
from streamgate.contracts.metadata import Catalog
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.metadata.settings import MetadataSettings
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.site import Site


@asynccontextmanager
async def setup(context: Context[MetadataSettings]) -> AsyncGenerator[Parts, None]:
    """Start the catalog."""
    from streamgate.plugins.metadata.http import controllers
    from streamgate.plugins.metadata.service import CatalogService

    service = CatalogService(
        settings=context.settings,
        database=context.need(Database),
        outbox=context.need(Outbox),
        jobs=context.need(Jobs),
        access=context.need(Access),
        blobs=context.need(BlobStore),
        site=context.need(Site),
        clock=context.need(Clock),
    )
    catalog: Catalog = service
    yield Parts(provides={Catalog: catalog}, routes=controllers(service, context.draining), health=service.health)


plugin = Plugin(
    name="metadata",
    settings=MetadataSettings,
    setup=setup,
    requires=(Database, Outbox, Jobs, BlobStore, Site, Clock, Access),
    provides=(Catalog,),
)
