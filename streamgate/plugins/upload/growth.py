"""Telling the transcoder that bytes of a film arrive, and which, so that it may play before its last one."""

from __future__ import annotations

import time
from collections import OrderedDict

from streamgate.contracts.upload import GrowingPayload, GrowingSource, SourcePart
from streamgate.domain.clock import Clock
from streamgate.domain.errors import NotFound
from streamgate.plugins.upload import store
from streamgate.plugins.upload.keeping import Keeping
from streamgate.plugins.upload.store import OPEN, Upload
from streamgate.runtime.database import Database, Transaction
from streamgate.runtime.jobs import Jobs

PAUSE_S = 10.0
"""Seconds without a byte after which the job may have ended, since nothing came that it could follow."""

ENOUGH = 64 << 10
"""Bytes below which no film plays."""

_MOST = 10_000


class Growth:
    """Submits the job that follows an upload: when it has begun to arrive, and when it goes on after a pause."""

    def __init__(self, jobs: Jobs, database: Database, keeping: Keeping, clock: Clock) -> None:
        self._jobs = jobs
        self._database = database
        self._keeping = keeping
        self._clock = clock
        self._moved: OrderedDict[str, float] = OrderedDict()

    async def source(self, asset_id: str) -> GrowingSource:
        """As `contracts.upload.Uploads.growing`."""
        async with self._database.read() as connection:
            running = [u for u in await store.of_asset(connection, asset_id) if u.state == OPEN]
            parts = await store.parts_of(connection, running[0].id) if running else []
        upload = running[0] if running else None
        if upload is None or upload.length is None or upload.expires_ms <= self._clock.now_ms():
            raise NotFound("No upload of this film runs.")
        sent = upload.index_key is not None and upload.index_length is not None
        tail = SourcePart(upload.index_key or "", upload.index_length or 0) if sent else None
        lasting = tuple(self._keeping.lasting(parts))
        return GrowingSource(asset_id=asset_id, size=upload.length, parts=lasting, tail=tail)

    async def moved(self, tx: Transaction, upload: Upload) -> None:
        """The offset of an upload moves in this transaction, and it is not complete."""
        if upload.asset_id is None or upload.length is None or upload.offset < ENOUGH:
            return
        now = time.monotonic()
        before = self._moved.pop(upload.id, None)
        self._moved[upload.id] = now
        if len(self._moved) > _MOST:
            self._moved.popitem(last=False)
        if before is None or now - before >= PAUSE_S:
            await self._submit(tx, upload)

    async def look_again(self, tx: Transaction, upload: Upload) -> None:
        """The index was sent ahead: what has come may play now."""
        if upload.offset >= ENOUGH:
            await self._submit(tx, upload)

    async def _submit(self, tx: Transaction, upload: Upload) -> None:
        await self._jobs.submit(
            tx,
            "transcoder.growing",
            GrowingPayload(asset_id=upload.asset_id or ""),
            queue="growing",
            key=f"growing:{upload.asset_id}",
            owner=upload.owner,
            subject=upload.asset_id,
        )
