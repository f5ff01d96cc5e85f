"""Objects that nobody holds: what a crash left between storing bytes and writing the row that names them."""

from __future__ import annotations

import structlog

from streamgate.plugins.upload import store
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database

PREFIX = "uploads/"
BATCH = 500


async def remove_orphans(database: Database, blobs: BlobStore, before_ms: int) -> int:
    """Remove the objects of uploads that no row names and that nobody has touched since ``before_ms``; how many."""
    old = [info.key async for info in blobs.list(PREFIX) if info.modified_ms < before_ms]
    removed = 0
    for begin in range(0, len(old), BATCH):
        batch = old[begin : begin + BATCH]
        async with database.read() as connection:
            kept = await store.held(connection, batch)
        for key in batch:
            if key not in kept:
                await blobs.delete(key)
                removed += 1
                structlog.get_logger().info("orphaned object removed", key=key)
    return removed
