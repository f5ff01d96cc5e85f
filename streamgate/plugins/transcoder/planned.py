"""What a plan brings along, put where it is served from: init segments, captions, the index, a source that was written out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import NotFound, StreamGateError
from streamgate.media.model import Grown, MediaPlan, remuxed_file
from streamgate.packaging.indexes import Divided, divided
from streamgate.plugins.transcoder import standing
from streamgate.plugins.transcoder.objects import pieces, put_all
from streamgate.plugins.transcoder.store import Film, Growth
from streamgate.ports.storage import BlobStore


class IndexObjects:
    """The objects of a film's sample index: those that it begins to play with, which may be on their way to the store before the
    plan is there that they belong to, and the others, which follow when it plays."""

    def __init__(self, blobs: BlobStore, asset_id: str, plan_id: str) -> None:
        self._blobs = blobs
        self._key = standing.index_key(asset_id, plan_id)
        self._begun: tuple[Divided, asyncio.Task[None]] | None = None
        self.kept: Divided | None = None
        """The index of which the beginning is stored; None before, and where there is none."""

    def begin(self, index: bytes) -> None:
        """Begin to store an index of which it is not known yet whether it counts; nothing more once one was begun.

        `ValueError` when it is none.
        """
        if self._begun is None:
            parts = divided(self._key, index)
            self._begun = parts, asyncio.create_task(put_all(self._blobs, parts.opening()))

    async def store(self, index: bytes) -> None:
        """Return when the film can play with this index: the one that was begun, or another in its place."""
        if self._begun is not None and self._begun[0].index is not index:
            await self.drop()
        self.begin(index)
        assert self._begun is not None
        parts, storing = self._begun
        await storing
        self._begun, self.kept = None, parts

    async def drop(self) -> None:
        """Leave nothing of what was begun and did not count; what cannot be removed now is only wasted room."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await _ended(begun[1])
            with suppress(StreamGateError):
                await self._blobs.delete_prefix(f"{self._key}/")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


async def kept(
    blobs: BlobStore,
    asset_id: str,
    plan_id: str,
    plan: MediaPlan,
    parts: Sequence[SourcePart],
    folder: Path,
    index: IndexObjects,
) -> MediaPlan:
    """Store what the film begins to play with; the plan without it, and with the objects that its index is of.

    ``parts``: those of the upload, or those that the plan goes on from (`MediaPlan.remuxed_before`); ``folder``: where the planning
    child wrote the source out, if it did; ``index``: the objects of this plan's index, storing which may have begun.
    """
    objects = [(standing.init_key(asset_id, plan_id, rendition.name), rendition.init) for rendition in plan.renditions]
    objects += [(standing.caption_key(asset_id, plan_id, track.name), track.vtt) for track in plan.captions]
    storing = index.store(plan.index) if plan.index else index.drop()
    for outcome in await asyncio.gather(put_all(blobs, objects), storing, return_exceptions=True):
        if outcome is not None:
            raise outcome
    indexed = list(parts) if plan.index else []
    if plan.remuxed or plan.remuxed_before:
        indexed, name = list(parts) if plan.remuxed_before else [], secrets.token_hex(4)
        for number, length in enumerate(plan.remuxed):
            key = standing.remuxed_key(asset_id, plan_id, f"{len(indexed)}-{name}")
            await blobs.put(key, pieces(folder / remuxed_file(number)))
            indexed.append(SourcePart(key, length))
    captions = tuple(replace(track, vtt=b"") for track in plan.captions)
    return replace(plan, captions=captions, index=b"", parts=tuple(indexed))


async def written_out(blobs: BlobStore, film: Film | None) -> Grown | None:
    """What the last look at a film came to that was written out while it arrived; None for any other."""
    growth = film.growth if film is not None else None
    if growth is None or growth.state_key is None:
        return None
    try:
        return Grown(state=await blobs.read(growth.state_key), size=growth.size)
    except NotFound:
        return None


def left_behind(asset_id: str, plan_id: str, growth: Growth) -> str:
    """Below which prefix that lies which nobody needs of a growing film once it has a plan by that name."""
    if growth.plan_id == plan_id:
        return standing.growing_key(asset_id, plan_id, "")
    return f"assets/{asset_id}/{growth.plan_id}/"


async def forget_strays(blobs: BlobStore, asset_id: str, plan_id: str, parts: Collection[SourcePart]) -> None:
    """Delete what was written out for a plan and is none of its ``parts``: who wrote it was killed before that counted."""
    mine = {part.key for part in parts}
    found = [info.key async for info in blobs.list(standing.remuxed_key(asset_id, plan_id, ""))]
    for key in found:
        if key not in mine:
            await blobs.delete(key)


async def forget_others(blobs: BlobStore, asset_id: str, plans: Collection[str]) -> None:
    """Delete what attempts that came to nothing wrote out of the film; ``plans``: those that it has, also while it arrives."""
    mine = {standing.remuxed_key(asset_id, plan_id, 0).rpartition("/")[0] for plan_id in plans}
    found = [info.key async for info in blobs.list(f"assets/{asset_id}/")]
    for key in found:
        folder = key.rpartition("/")[0]
        if folder.endswith(standing.REMUXED) and folder not in mine:
            await blobs.delete(key)
