"""Following an upload: as bytes arrive, what of the film they complete is made known, until the last one has come.

A look at the index reads everything anew, so one that is lost costs nothing; what was listed stays listed.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import structlog
from msgspec.structs import replace

from streamgate.contracts.upload import GrowingPayload, GrowingSource, SourcePart, Uploads
from streamgate.domain.asset import MediaRefused
from streamgate.domain.errors import NotFound
from streamgate.domain.identity import Prefix, new_id
from streamgate.media.model import Grown, LadderSettings, Limits, remuxed_file
from streamgate.media.sandbox import Sandbox
from streamgate.packaging.indexes import divided
from streamgate.plugins.transcoder import planned, sentahead, standing, store
from streamgate.plugins.transcoder.films import Films
from streamgate.plugins.transcoder.objects import pieces, put_all
from streamgate.plugins.transcoder.scans import Scans
from streamgate.plugins.transcoder.scratch import scratch_folder
from streamgate.plugins.transcoder.settings import TranscoderSettings
from streamgate.plugins.transcoder.source_bytes import ArrivingBytes, Remembered
from streamgate.plugins.transcoder.store import Ahead, Growth
from streamgate.ports.storage import BlobStore
from streamgate.runtime.jobs import Attempt, Snooze

GROWING = "transcoder.growing"
GROWING_QUEUE = "growing"

AT_ONCE = 8
"""Uploads that one process follows at a time; others wait for their turn."""

LOOK_EVERY_S = 0.5
BETWEEN_S = 1.0
"""Seconds from one look at an index to the next, or four times what the last one took if that is more."""

LONGEST_BETWEEN_S = 8.0

IDLE_S = 20.0
"""Seconds without a byte after which an upload is not followed; it is taken up when bytes come again."""

KEPT = 4
"""Indexes that are kept of an upload: the one that counts, and those that somebody may still be reading."""

FAR = 64 << 20
"""Bytes ahead of what has arrived beyond which an index is not waited for."""

LEFT_FREE = 1 << 30
"""Bytes of free space that are left beside the rest of an upload where it is written out as it arrives."""

AFTER_RESTART_S = 1.0


def next_step(before: Grown, arrived: int, idle_s: float) -> Literal["look", "wait", "end"]:
    """What to do when so many bytes are there, and none came for ``idle_s`` seconds; ``before``: what the last look came to.

    What is there and has not been looked at is looked at, however long nothing has come.
    """
    if before.wanted is None or before.wanted > arrived + FAR:
        return "end"
    if arrived >= before.wanted and arrived > before.looked_at:
        return "look"
    return "end" if idle_s > IDLE_S else "wait"


@dataclass(slots=True)
class _Step:
    """What a look came to, on its way into the database. ``made``: keys of objects that are this step's alone; ``indexes``: those
    below which its index lies."""

    source: GrowingSource
    ahead: Ahead | None
    found: Grown
    known: Growth | None
    folder: Path
    plan_id: str
    made: set[str] = field(default_factory=set)
    indexes: set[str] = field(default_factory=set)
    _name: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def asset_id(self) -> str:
        return self.source.asset_id

    def key(self, beginning: str) -> str:
        """A key that nobody else writes to: who has lost the job may still be at it."""
        key = f"{beginning}-{self._name}"
        self.made.add(key)
        return key

    def index_key(self) -> str:
        """The same for the objects of an index."""
        key = f"{standing.growing_key(self.asset_id, self.plan_id, 'index')}-{self._name}"
        self.indexes.add(key)
        return key


class GrowingFilms:
    """Handler of the queue ``growing``."""

    def __init__(
        self,
        films: Films,
        uploads: Uploads,
        blobs: BlobStore,
        sandbox: Sandbox,
        ladder: LadderSettings,
        limits: Limits,
        settings: TranscoderSettings,
        scratch: Path,
        draining: asyncio.Event,
        scans: Scans,
    ) -> None:
        self._films = films
        self._uploads = uploads
        self._blobs = blobs
        self._sandbox = sandbox
        self._ladder = ladder
        self._limits = limits
        self._timeout_s = settings.plan_timeout_s
        self._scratch = scratch
        self._draining = draining
        self._scans = scans

    async def follow(self, attempt: Attempt) -> None:
        """Follow an upload until it ends, pauses, or has nothing to play before its last byte."""
        asset_id = attempt.payload(GrowingPayload).asset_id
        if not self._ladder.passthrough:
            return
        before, seen, moved = await self._where_it_stood(asset_id), -1, time.monotonic()
        not_before, tail, ahead, known = 0.0, None, None, Remembered()
        while True:
            try:
                source = await self._uploads.growing(asset_id)
            except NotFound:
                return
            now = time.monotonic()
            if source.tail != tail:
                with suppress(NotFound):  # another one was sent meanwhile
                    ahead = await sentahead.said(self._blobs, source.tail) if source.tail is not None else None
                    tail, before = source.tail, replace(before, wanted=0, looked_at=0)
            if source.arrived != seen:
                seen, moved = source.arrived, now
            step = next_step(before, seen, now - moved)
            if step == "end":
                return
            if step == "look" and now >= not_before and source.tail == tail:
                found = await self._look(attempt, source, ahead, before, known)
                if found is None:
                    return
                before = found
                self._scans.looked(asset_id, found)
                not_before = time.monotonic() + min(LONGEST_BETWEEN_S, max(BETWEEN_S, 4 * (time.monotonic() - now)))
            await self._pause()

    async def _where_it_stood(self, asset_id: str) -> Grown:
        film = await self._films.get(asset_id)
        if film is None or film.growth is None:
            return Grown(wanted=0)
        known = film.growth
        stood = Grown(wanted=0, count=known.count, looked_at=known.looked_at, lies=known.lies, mark=known.mark)
        if known.state_key is None:
            return stood
        copied = await planned.written_out(self._blobs, film)
        return replace(stood, state=copied.state, size=copied.size) if copied is not None else Grown()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._draining.wait()
        if self._draining.is_set():
            raise Snooze(AFTER_RESTART_S)

    async def _look(
        self, attempt: Attempt, source: GrowingSource, ahead: Ahead | None, before: Grown, known: Remembered
    ) -> Grown | None:
        """Look at what has arrived, and make known what is new; None when there is no use in following any longer.

        ``ahead``: what was sent ahead, as `Growth` has it.
        """
        folder = scratch_folder(self._scratch, attempt)
        try:
            found = await self._found(ArrivingBytes(source, self._blobs, known), before, folder)
            log = structlog.get_logger().bind(asset_id=source.asset_id, arrived=source.arrived)
            if found.wanted is None and found.count == 0:
                log.info("an upload does not play before its last byte", reason=found.reason)
                return None
            if not found.count or (found.size and not found.written):
                return found
            return found if await self._publish(attempt, source, ahead, found, folder) else None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _found(self, there: ArrivingBytes, before: Grown, folder: Path) -> Grown:
        try:
            return await self._sandbox.look(
                there,
                extents=there.extents,
                before=before,
                ladder=self._ladder,
                limits=self._limits,
                folder=folder,
                timeout_s=self._timeout_s,
            )
        except MediaRefused as refused:
            return Grown(reason=refused.failure.detail)

    async def _publish(
        self, attempt: Attempt, source: GrowingSource, ahead: Ahead | None, found: Grown, folder: Path
    ) -> bool:
        """Store what a look found and wrote into ``folder``, if it is more than was known; False when the upload has ended
        meanwhile."""
        films, asset_id = self._films, source.asset_id
        film = await films.get(asset_id)
        known = film.growth if film is not None else None
        plan_id = known.plan_id if known is not None else new_id(Prefix.PLAN)
        step = _Step(source, ahead, found, known, folder, plan_id)
        kept = False
        try:
            growth = await self._growth(step)
            kept = growth is not None and await self._keep(attempt, asset_id, growth)
        finally:
            if not kept:
                await self._forget(step)
        if growth is None or not kept:
            return False
        if known is not None and known.state_key not in {None, growth.state_key}:
            await self._blobs.delete(known.state_key or "")
        if film is None or known is None or film.reported == 0 or known.plan.duration != growth.plan.duration:
            structlog.get_logger().info("an upload plays", asset_id=asset_id, arrived=source.arrived)
            await films.tell(asset_id)
        return True

    async def _forget(self, step: _Step) -> None:
        """Delete what was stored of a step that does not count."""
        film = await self._films.get(step.asset_id)
        if film is None or step.plan_id not in film.plans:
            await self._blobs.delete_prefix(f"assets/{step.asset_id}/{step.plan_id}/")
        elif film.growth is None or not step.indexes & {*film.growth.indexes}:
            for key in step.made:
                await self._blobs.delete(key)
            for key in step.indexes:
                await self._blobs.delete_prefix(f"{key}/")

    async def _keep(self, attempt: Attempt, asset_id: str, growth: Growth) -> bool:
        films = self._films
        async with films.database.write() as tx:
            await attempt.fence(tx)
            now = films.clock.now_ms()
            await store.open_film(tx, asset_id, attempt.job.owner, now)
            kept = await store.grow(tx, asset_id, growth, now)
            films.changed(tx, asset_id)
        return kept

    async def _growth(self, step: _Step) -> Growth | None:
        """What plays now, its objects stored; None where it would change what is listed already, or there is no room.

        So it is where something else was sent ahead than what that was listed by.
        """
        known, source, found, plan = step.known, step.source, step.found, step.found.plan
        if known is not None and known.ahead != step.ahead:
            return None
        if plan is None:
            same = known is not None and known.mark == found.mark
            return _more(known, source, found) if known is not None and same else None
        if known is not None and not standing.agrees(known, plan, found.count):
            return None
        if found.written and not await self._may_be_written(step):
            return None
        inits = [(standing.init_key(step.asset_id, step.plan_id, r.name), r.init) for r in plan.renditions]
        index = divided(step.index_key(), plan.index)
        await put_all(self._blobs, chain(inits, index.opening(), index.rest()))
        indexes = (index.key, *(known.indexes if known is not None else ()))
        for old in indexes[KEPT:]:
            await self._blobs.delete_prefix(f"{old}/")
        begun = Growth(
            plan_id=step.plan_id,
            plan=replace(plan, index=b""),
            size=source.size,
            indexes=indexes[:KEPT],
            ahead=step.ahead,
        )
        if found.written:
            begun = await self._written(step, begun)
        return _more(begun, source, found)

    async def _may_be_written(self, step: _Step) -> bool:
        """Whether what a look wrote out goes on where the last one ended, and leaves room for the rest of the upload."""
        more = sum(step.found.written)
        if step.found.size - more != (step.known.size if step.known is not None else 0):
            return False
        free = await self._blobs.free_bytes()
        if free is None or free - more - (step.source.size - step.source.arrived) >= LEFT_FREE:
            return True
        structlog.get_logger().warning("no room to play an upload before its last byte", asset_id=step.asset_id)
        return False

    async def _written(self, step: _Step, begun: Growth) -> Growth:
        """The same with what a look wrote out stored behind what earlier ones did."""
        parts = list(step.known.parts) if step.known is not None else []
        for number, length in enumerate(step.found.written):
            key = step.key(standing.remuxed_key(step.asset_id, step.plan_id, len(parts)))
            await self._blobs.put(key, pieces(step.folder / remuxed_file(number)))
            parts.append(SourcePart(key, length))
        state_key = step.key(standing.growing_key(step.asset_id, step.plan_id, "state"))
        await self._blobs.put(state_key, step.found.state)
        return replace(begun, size=step.found.size, parts=tuple(parts), state_key=state_key)


def _more(known: Growth, source: GrowingSource, found: Grown) -> Growth:
    """The same with what has arrived since."""
    return replace(
        known,
        count=found.count,
        parts=source.parts if known.state_key is None else known.parts,
        looked_at=found.looked_at,
        lies=found.lies,
        mark=found.mark,
    )
