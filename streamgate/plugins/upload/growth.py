"""Telling the transcoder that bytes of a film arrive, so that it may play before its last one."""

from __future__ import annotations

import time
from collections import OrderedDict

from streamgate.contracts.upload import GrowingPayload
from streamgate.plugins.upload.store import Upload
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobs import Jobs

PAUSE_S = 10.0
"""Seconds without a byte after which the job may have ended, since nothing came that it could follow."""

ENOUGH = 64 << 10
"""Bytes below which no film plays."""

_MOST = 10_000


class Growth:
    """Submits the job that follows an upload: when it has begun to arrive, and when it goes on after a pause."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._moved: OrderedDict[str, float] = OrderedDict()

    async def moved(self, tx: Transaction, upload: Upload) -> None:
        """The offset of an upload moves in this transaction, and it is not complete."""
        if upload.asset_id is None or upload.length is None or upload.offset < ENOUGH:
            return
        now = time.monotonic()
        before = self._moved.pop(upload.id, None)
        self._moved[upload.id] = now
        if len(self._moved) > _MOST:
            self._moved.popitem(last=False)
        if before is not None and now - before < PAUSE_S:
            return
        await self._jobs.submit(
            tx,
            "transcoder.growing",
            GrowingPayload(asset_id=upload.asset_id),
            queue="growing",
            key=f"growing:{upload.asset_id}",
            owner=upload.owner,
            subject=upload.asset_id,
        )
