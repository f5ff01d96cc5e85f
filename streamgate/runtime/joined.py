"""Objects of the store read as one: the parts of an uploaded film, joined in order, by byte ranges."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from streamgate.contracts.upload import SourcePart
from streamgate.ports.storage import BlobStore


class Joined:
    """Parts of a source as one. ``size`` in bytes."""

    def __init__(self, parts: Sequence[SourcePart], blobs: BlobStore) -> None:
        self._blobs = blobs
        self._parts = parts
        self._starts = [0, *accumulate(part.length for part in parts)]
        self.size = self._starts[-1]

    def within_one(self, offset: int, length: int) -> tuple[str, int] | None:
        """The key of the part that holds all of a range, and where in it the range begins; None where several hold it."""
        index = bisect_right(self._starts, offset) - 1
        if not 0 <= index < len(self._parts) or offset + length > self._starts[index + 1]:
            return None
        return self._parts[index].key, offset - self._starts[index]

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes, fewer only at the end; raises as `BlobStore.read`."""
        wanted: list[tuple[str, int, int]] = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while length > 0 and index < len(self._parts):
            part, inside = self._parts[index], offset - self._starts[index]
            count = min(length, part.length - inside)
            if count > 0:
                wanted.append((part.key, inside, count))
                offset, length = offset + count, length - count
            index += 1
        if len(wanted) == 1:
            return await self._blobs.read(*wanted[0])
        return b"".join(await asyncio.gather(*(self._blobs.read(*one) for one in wanted)))
