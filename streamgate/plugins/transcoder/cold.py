"""Ladders of films that nobody watches are dropped; what they were made of stays, so that they come back when they are wanted."""

from __future__ import annotations

import msgspec
import structlog

from streamgate.contracts.transcoder import MediaReplaced
from streamgate.plugins.transcoder import store
from streamgate.plugins.transcoder.films import QUEUE, REMOVAL, REST, Films
from streamgate.ports.storage import BlobStore
from streamgate.runtime.jobs import Attempt
from streamgate.runtime.outbox import Outbox

DAY_S = 86_400
FILMS_AT_A_TIME = 100
PREFIXES_PER_JOB = 200


class RemovalPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a removal job: objects under these prefixes belong to nothing any more."""

    asset_id: str
    prefixes: tuple[str, ...]


class ColdLadders:
    """Drops ladders. ``days``: how long a film must have been unwatched; None: no ladder is ever dropped.

    What is dropped is encoded video. Sound is small and stays, as does what a film begins with (`MediaPlan.opening`), so that a
    cold film plays as soon as any other.
    """

    def __init__(self, *, films: Films, blobs: BlobStore, outbox: Outbox, days: float | None) -> None:
        self._films = films
        self._blobs = blobs
        self._outbox = outbox
        self._days = days

    async def sweep(self) -> None:
        """Periodic: drop the ladders of all films that were unwatched for long enough."""
        if self._days is None:
            return
        before = self._films.clock.now_ms() - int(self._days * DAY_S * 1000)
        while True:
            async with self._films.database.read() as connection:
                found = await store.unwatched(connection, before, FILMS_AT_A_TIME)
            for asset_id in found:
                await self._drop(asset_id, before)
            if len(found) < FILMS_AT_A_TIME:
                return

    async def remove(self, attempt: Attempt) -> None:
        """Delete the objects of what was dropped."""
        for prefix in attempt.payload(RemovalPayload).prefixes:
            await self._blobs.delete_prefix(prefix)

    async def _drop(self, asset_id: str, before_ms: int) -> None:
        """Forget what is encoded and submit the removal of its objects in one transaction."""
        films = self._films
        film = await films.get(asset_id)
        if film is None or film.plan is None or film.plan_id is None:
            return
        plan = film.plan
        pictures = [rendition.name for rendition in plan.encoded if rendition.kind == "video"]
        async with films.database.write() as tx:
            if not await store.cool(tx, asset_id, before_ms, films.clock.now_ms()):
                return
            prefixes = await store.drop_chunks(tx, film.plan_id, pictures, plan.opening)
            for start in range(0, len(prefixes), PREFIXES_PER_JOB):
                await films.jobs.submit(
                    tx,
                    REMOVAL,
                    RemovalPayload(asset_id=asset_id, prefixes=tuple(prefixes[start : start + PREFIXES_PER_JOB])),
                    queue=QUEUE,
                    priority=REST,
                    owner=film.owner,
                    subject=asset_id,
                )
            await self._outbox.announce(tx, MediaReplaced(asset_id=asset_id))
            films.changed(tx, asset_id)
        structlog.get_logger().info("a ladder that nobody watched was dropped", asset_id=asset_id, chunks=len(prefixes))
        await films.tell(asset_id)
