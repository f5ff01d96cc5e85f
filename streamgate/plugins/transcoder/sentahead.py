"""What was sent ahead of an upload, and whether the file ends with it after all: until then it is only somebody's word."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from streamgate.contracts.upload import Source, SourcePart
from streamgate.domain.asset import MediaWarning
from streamgate.plugins.transcoder.store import Ahead
from streamgate.ports.storage import BlobStore
from streamgate.runtime.joined import Joined

ANOTHER = MediaWarning(
    "index_not_of_film",
    "The index that was sent ahead of the upload is not the one that the file ends with. What played by it meanwhile "
    "counts for nothing: the film is what the file says.",
)

_AT_ONCE = 4 << 20


async def said(blobs: BlobStore, tail: SourcePart) -> Ahead:
    """What was sent. Raises as `BlobStore.read`."""
    return Ahead(tail.length, await _digest(blobs, (tail,), 0, tail.length))


async def is_the_end(blobs: BlobStore, source: Source, ahead: Ahead) -> bool:
    """Whether a film that is whole ends with that. Raises as `BlobStore.read`."""
    if ahead.length > source.size:
        return False
    return await _digest(blobs, source.parts, source.size - ahead.length, source.size) == ahead.digest


async def _digest(blobs: BlobStore, parts: Sequence[SourcePart], begin: int, end: int) -> bytes:
    joined, found = Joined(parts, blobs), hashlib.sha256()
    for at in range(begin, end, _AT_ONCE):
        data = await joined.read(at, min(_AT_ONCE, end - at))
        await asyncio.to_thread(found.update, data)
    return found.digest()
