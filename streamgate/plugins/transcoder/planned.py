"""What a plan brings along, put where it is served from: init segments, captions, the index, a source that was written out."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from msgspec.structs import replace

from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import NotFound
from streamgate.media.model import Grown, MediaPlan, remuxed_file
from streamgate.plugins.transcoder import standing
from streamgate.plugins.transcoder.objects import pieces, put_all
from streamgate.plugins.transcoder.store import Film, Growth
from streamgate.ports.storage import BlobStore


async def kept(
    blobs: BlobStore, asset_id: str, plan_id: str, plan: MediaPlan, parts: Sequence[SourcePart], folder: Path
) -> MediaPlan:
    """Store it; the plan without it, and with the objects that its index is of.

    ``parts``: those of the upload, or those that the plan goes on from (`MediaPlan.remuxed_before`); ``folder``: where the planning
    child wrote the source out, if it did.
    """
    objects = [(standing.init_key(asset_id, plan_id, rendition.name), rendition.init) for rendition in plan.renditions]
    objects += [(standing.caption_key(asset_id, plan_id, track.name), track.vtt) for track in plan.captions]
    if plan.index:
        objects.append((standing.index_key(asset_id, plan_id), plan.index))
    await put_all(blobs, objects)
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
