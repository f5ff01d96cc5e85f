"""The bytes of an uploaded film, for a media child: a local file where it is one, else ranges over its parts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path

from streamgate.contracts.upload import Source
from streamgate.ports.storage import BlobRange, BlobStore


class SourceBytes:
    """Implements `media.sandbox.ByteSource`."""

    def __init__(self, source: Source, blobs: BlobStore, path: Path | None) -> None:
        self.size = source.size
        self.path = path
        self._blobs = blobs
        self._parts = source.parts
        self._starts = [0, *accumulate(part.length for part in source.parts)]

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes, fewer only at the end; joined across parts."""
        pieces = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while length > 0 and index < len(self._parts):
            part, inside = self._parts[index], offset - self._starts[index]
            count = min(length, part.length - inside)
            if count > 0:
                pieces.append(await self._blobs.read(part.key, inside, count))
                offset, length = offset + count, length - count
            index += 1
        return b"".join(pieces)


@asynccontextmanager
async def opened(source: Source, blobs: BlobStore) -> AsyncIterator[SourceBytes]:
    """The source for as long as the block runs; no copy is made of it."""
    if blobs.is_local and len(source.parts) == 1:
        part = source.parts[0]
        async with blobs.materialise([BlobRange(part.key, 0, part.length)]) as path:
            yield SourceBytes(source, blobs, path)
    else:
        yield SourceBytes(source, blobs, None)
