"""The bytes of an uploaded film, for a media child: a local file where it is one, else ranges over its parts; and pieces of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from streamgate.contracts.upload import GrowingSource, Source
from streamgate.domain.errors import NotFound
from streamgate.media.excerpt import MAX_EXCERPT, segments_for
from streamgate.media.model import MediaPlan
from streamgate.packaging.indexes import Indexes, PieceMissing
from streamgate.packaging.segments import SegmentLayout
from streamgate.ports.storage import BlobRange, BlobStore
from streamgate.runtime.joined import Joined

_SHORT = 16 << 10
"""Longest range in bytes that is remembered."""

_REMEMBERED = 16 << 20
"""Bytes that are remembered of a source, the cost of each range included."""


class SourceBytes:
    """Implements `media.reads.ByteSource`."""

    def __init__(self, source: Source, blobs: BlobStore, path: Path | None) -> None:
        self.size = source.size
        self.path = path
        self._joined = Joined(source.parts, blobs)

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes, fewer only at the end; joined across parts."""
        return await self._joined.read(offset, length)


class Remembered:
    """Short ranges of a source that were read, for whoever reads them again: the boxes of an index lie all over a file."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], bytes] = {}
        self._room = _REMEMBERED

    async def read(self, offset: int, length: int, load: Callable[[int, int], Awaitable[bytes]]) -> bytes:
        """The range, loaded when it is not known. What is there of a source never changes."""
        data = self._kept.get((offset, length))
        if data is None:
            data = await load(offset, length)
            if len(data) == length <= _SHORT and self._room >= length:
                self._kept[offset, length] = data
                self._room -= length + _SHORT // 64
        return data


class ArrivingBytes:
    """Implements `media.reads.ByteSource` for a source of which a part has arrived."""

    path: Path | None = None

    def __init__(self, source: GrowingSource, blobs: BlobStore, known: Remembered) -> None:
        self.size = source.size
        self._known = known
        self._blobs = blobs
        self._tail = source.tail
        self._joined = Joined(source.parts, blobs)
        self.extents: tuple[tuple[int, int], ...] = ((0, self._joined.size),)
        """What is there, as (begin, end): what has arrived, and what was sent ahead."""
        if source.tail is not None:
            self.extents += ((source.size - source.tail.length, source.size),)

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes, fewer where what is there ends."""
        if offset >= self._joined.size and self._tail is not None:
            inside = offset - (self.size - self._tail.length)
            if inside >= 0:
                return await self._blobs.read(self._tail.key, inside, min(length, self._tail.length - inside))
        return await self._known.read(offset, length, self._joined.read)


@asynccontextmanager
async def opened(source: Source, blobs: BlobStore) -> AsyncIterator[SourceBytes]:
    """The source for as long as the block runs; no copy is made of it."""
    if blobs.is_local and len(source.parts) == 1:
        part = source.parts[0]
        async with blobs.materialise([BlobRange(part.key, 0, part.length)]) as path:
            yield SourceBytes(source, blobs, path)
    else:
        yield SourceBytes(source, blobs, None)


async def excerpt(
    indexes: Indexes, key: str, plan: MediaPlan, chunks: range, names: Collection[str]
) -> list[SegmentLayout]:
    """What of the source's video consecutive chunks of these renditions need, out of the index of that storage key.

    Empty where the source is to be opened instead: it has no index of its video, or one that cannot be read.
    """
    video = any(rendition.kind == "video" and rendition.name in names for rendition in plan.encoded)
    wanted = segments_for(plan, chunks) if video and plan.parts else None
    if wanted is None:
        return []
    track, numbers = wanted
    size = sum(part.length for part in plan.parts)
    try:
        found = [await indexes.layout(key, size, track, number) for number in numbers]
    except (NotFound, PieceMissing, LookupError, ValueError):
        structlog.get_logger().warning("the index of a film cannot be read", key=key)
        return []
    return found if sum(layout.length for layout in found) <= MAX_EXCERPT else []
