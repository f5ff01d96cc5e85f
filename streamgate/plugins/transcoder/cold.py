"""Ladders of films that nobody watches are dropped; what they were made of stays, so that they come back when they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec
import structlog

from streamgate.contracts.metadata import Catalog
from streamgate.contracts.transcoder import MediaReplaced
from streamgate.plugins.transcoder import store
from streamgate.plugins.transcoder.films import QUEUE, REMOVAL, REST, Films
from streamgate.plugins.transcoder.store import Film
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Transaction
from streamgate.runtime.jobs import Attempt, Handler
from streamgate.runtime.outbox import Outbox

DAY_S = 86_400
FILMS_AT_A_TIME = 100
PREFIXES_PER_JOB = 200


class RemovalPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a removal job: objects under these prefixes belong to nothing any more."""

    asset_id: str
    prefixes: tuple[str, ...]


async def submit_removal(
    films: Films, tx: Transaction, film: Film, prefixes: Sequence[str], *, after_s: float = 0.0
) -> None:
    """Have the objects under these prefixes removed, ``after_s`` seconds from now."""
    await films.jobs.submit(
        tx,
        REMOVAL,
        RemovalPayload(asset_id=film.asset_id, prefixes=tuple(prefixes)),
        queue=QUEUE,
        priority=REST,
        run_at_ms=films.clock.now_ms() + int(after_s * 1000),
        owner=film.owner,
        subject=film.asset_id,
    )


class ColdLadders:
    """Drops ladders. ``days``: how long a film must have been unwatched; None: no ladder is dropped but of films that say so.

    A film's own ``cold_days`` goes before ``days``. The catalog owns it and is asked at each sweep, so there is no copy of it
    here that could be stale; a film whose setting changes during a sweep may still be dropped by the old one, and comes back.

    What is dropped is encoded video. Sound is small and stays, as does what a film begins with (`MediaPlan.opening`), so that a
    cold film plays as soon as any other.
    """

    def __init__(self, *, films: Films, catalog: Catalog, blobs: BlobStore, outbox: Outbox, days: float | None) -> None:
        self._films = films
        self._catalog = catalog
        self._blobs = blobs
        self._outbox = outbox
        self._days = days

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        return {REMOVAL: self.remove}

    async def sweep(self) -> None:
        """Periodic: drop the ladders of all films that were unwatched for long enough; none while the catalog is away."""
        own = await self._own_days()
        for some in _by(FILMS_AT_A_TIME, own):
            async with self._films.database.read() as connection:
                found = await store.when_watched(connection, some)
            for watched_ms, asset_id in found:
                if own[asset_id] and watched_ms < (before := self._before(own[asset_id])):
                    await self._drop(asset_id, before)
        if self._days is not None:
            await self._sweep_others(self._before(self._days), own)

    async def _sweep_others(self, before_ms: int, own: Mapping[str, float]) -> None:
        """Drop the ladders of films without days of their own that nobody watched since then."""
        found: list[tuple[int, str]] = [(-1, "")]
        while found:
            async with self._films.database.read() as connection:
                found = await store.unwatched(connection, before_ms, found[-1], FILMS_AT_A_TIME)
            for _, asset_id in found:
                if asset_id not in own:
                    await self._drop(asset_id, before_ms)

    async def _own_days(self) -> dict[str, float]:
        """By film: the days of those that have their own."""
        page = await self._catalog.cold_days(None)
        found = {one.asset_id: one.days for one in page.items}
        while page.next_cursor is not None:
            page = await self._catalog.cold_days(page.next_cursor)
            found |= {one.asset_id: one.days for one in page.items}
        return found

    def _before(self, days: float) -> int:
        return self._films.clock.now_ms() - int(days * DAY_S * 1000)

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
                await submit_removal(films, tx, film, prefixes[start : start + PREFIXES_PER_JOB])
            await self._outbox.announce(tx, MediaReplaced(asset_id=asset_id))
            films.changed(tx, asset_id)
        structlog.get_logger().info("a ladder that nobody watched was dropped", asset_id=asset_id, chunks=len(prefixes))
        await films.tell(asset_id)


def _by(size: int, items: Iterable[str]) -> Iterator[tuple[str, ...]]:
    left = iter(items)
    return iter(lambda: tuple(islice(left, size)), ())
