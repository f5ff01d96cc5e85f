"""What a plan brings along, put where it is served from: init segments, captions, the index, a source that was written out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from streamgate.contracts.upload import SourcePart
from streamgate.media.model import MediaPlan, remuxed_file
from streamgate.plugins.transcoder import standing
from streamgate.ports.storage import BlobStore

_PIECE = 1 << 20


async def kept(
    blobs: BlobStore, asset_id: str, plan_id: str, plan: MediaPlan, parts: Sequence[SourcePart], folder: Path
) -> MediaPlan:
    """Store it; the plan without it, and with the objects that its index is of.

    ``parts``: those of the upload; ``folder``: where the planning child wrote the source out, if it did.
    """
    for rendition in plan.renditions:
        await blobs.put(standing.init_key(asset_id, plan_id, rendition.name), rendition.init)
    for track in plan.captions:
        await blobs.put(standing.caption_key(asset_id, plan_id, track.name), track.vtt)
    if plan.index:
        await blobs.put(standing.index_key(asset_id, plan_id), plan.index)
    indexed = list(parts) if plan.index else []
    if plan.remuxed:
        indexed = []
        for number, length in enumerate(plan.remuxed):
            key = standing.remuxed_key(asset_id, plan_id, number)
            await blobs.put(key, _pieces(folder / remuxed_file(number)))
            indexed.append(SourcePart(key, length))
    captions = tuple(replace(track, vtt=b"") for track in plan.captions)
    return replace(plan, captions=captions, index=b"", parts=tuple(indexed))


async def forget_others(blobs: BlobStore, asset_id: str, plan_id: str | None) -> None:
    """Delete what attempts that came to nothing wrote out of the film; ``plan_id``: the plan that it has."""
    mine = standing.remuxed_key(asset_id, plan_id, 0).rpartition("/")[0] if plan_id is not None else None
    found = [info.key async for info in blobs.list(f"assets/{asset_id}/")]
    for key in found:
        folder = key.rpartition("/")[0]
        if folder.endswith(standing.REMUXED) and folder != mine:
            await blobs.delete(key)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
