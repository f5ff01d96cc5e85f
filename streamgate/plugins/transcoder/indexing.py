"""The rest of a film's sample index, which is stored once the film plays; and seeing to it that it is, whatever happens."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from streamgate.domain.errors import StreamGateError
from streamgate.packaging.indexes import Divided, piece_key
from streamgate.plugins.transcoder import standing
from streamgate.plugins.transcoder.films import QUEUE, SPREADING, Films
from streamgate.plugins.transcoder.objects import all_there, put_all
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobs import Attempt, Handler, Snooze

INDEX = "transcoder.index"

LOOKED_AT_S = 5.0
"""Seconds after a film plays when it is looked whether its index is whole. Storing it takes a fraction of that."""

LOOKED_AT_AGAIN_S = 30.0
"""The same after the film was planned anew because it was not."""

AFTER_S = 0.25
"""Seconds after a film plays when the rest of its index is stored: whoever waited for it asks for its beginning now."""

AT_ONCE = 2
"""Objects that are stored at a time, so that what is asked for meanwhile does not wait."""


class IndexPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a job that looks after the index of a plan: it lies in so many pieces."""

    asset_id: str
    plan_id: str
    pieces: int


class Indexing:
    """Stores what is left of indexes, by the process that made them and has them in memory.

    Should that end before, the job that was submitted with the plan finds pieces missing and has the film planned anew: an index
    can be made again from the upload alone.
    """

    def __init__(self, films: Films, blobs: BlobStore) -> None:
        self._films = films
        self._blobs = blobs
        self._storing: set[str] = set()

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        return {INDEX: self.look}

    async def submit(self, tx: Transaction, asset_id: str, owner: str | None, plan_id: str, index: Divided) -> None:
        """With the plan: have it looked, soon, whether all of its index is there."""
        if index.pieces > len(index.first):
            await self._films.jobs.submit(
                tx,
                INDEX,
                IndexPayload(asset_id=asset_id, plan_id=plan_id, pieces=index.pieces),
                queue=QUEUE,
                priority=SPREADING,
                run_at_ms=self._films.clock.now_ms() + int(LOOKED_AT_S * 1000),
                owner=owner,
                subject=asset_id,
            )

    async def finish(self, asset_id: str, plan_id: str, index: Divided) -> None:
        """Once the film plays: store what is left of its index. What fails is made good by the job."""
        if index.pieces == len(index.first):
            return
        self._storing.add(plan_id)
        try:
            await asyncio.sleep(AFTER_S)
            await put_all(self._blobs, index.rest(), at_once=AT_ONCE)
            film = await self._films.get(asset_id)
            if film is None or film.plan_id != plan_id:
                # Deleted or planned anew meanwhile: what came after that is nobody's.
                await self._blobs.delete_prefix(f"{index.key}/")
        except StreamGateError as error:
            structlog.get_logger().warning("an index is not whole yet", asset_id=asset_id, reason=error.detail)
        finally:
            self._storing.discard(plan_id)

    async def look(self, attempt: Attempt) -> None:
        """Look whether all of an index is there, and have the film planned anew where it is not, until it is."""
        payload = attempt.payload(IndexPayload)
        film = await self._films.get(payload.asset_id)
        if film is None or film.plan_id != payload.plan_id or film.error is not None:
            return
        key = standing.index_key(payload.asset_id, payload.plan_id)
        if payload.plan_id in self._storing:
            raise Snooze(LOOKED_AT_S)
        if await all_there(self._blobs, [piece_key(key, number) for number in range(payload.pieces)]):
            return
        structlog.get_logger().warning("the index of a film is not whole: it is planned anew", asset_id=film.asset_id)
        async with self._films.database.write() as tx:
            await attempt.fence(tx)
            await self._films.submit_ingest(tx, film.asset_id, film.owner)
        raise Snooze(LOOKED_AT_AGAIN_S)
