"""Segments that are bytes of the upload: looked up in the film's stored index, read by ranges, and joined."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from streamgate.contracts.transcoder import Presentation, RenditionPlan
from streamgate.domain.errors import NotFound, Unavailable
from streamgate.packaging.segments import StoredIndex, assemble
from streamgate.ports.storage import BlobStore
from streamgate.runtime.joined import Joined

MAX_BYTES = 128 << 20
"""Bytes of indexes that are kept in memory."""


LOADED_AT_ONCE = 4
"""Indexes that are read at the same time; those of other films wait."""


class Passthrough:
    """Makes segments of films whose source passes through. Nothing here opens a media file."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._indexes: OrderedDict[str, tuple[StoredIndex, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[StoredIndex]] = {}
        self._turns = asyncio.Semaphore(LOADED_AT_ONCE)

    async def segment(self, presentation: Presentation, rendition: RenditionPlan, number: int) -> bytes:
        """Segment ``number`` (from 0); `Unavailable` when the source or its index cannot be read."""
        source, track = presentation.source, rendition.passthrough
        if source is None or track is None:
            raise NotFound("The film has no such segment.")
        joined = Joined(source.parts, self._blobs)
        try:
            index = await self._index(source.index_key, source.size)
            layout = index.segment(track, number)
        except (NotFound, LookupError, ValueError):
            raise Unavailable("The film's index could not be read.", retry_after=5) from None
        try:
            spans = [(offset, await joined.read(offset, length)) for offset, length in layout.span()]
        except NotFound:
            raise Unavailable("The uploaded bytes of the film could not be read.", retry_after=5) from None

        def read(offset: int, length: int) -> bytes:
            for start, data in spans:
                if start <= offset and offset + length <= start + len(data):
                    return data[offset - start : offset - start + length]
            raise Unavailable("The uploaded bytes of the film are not complete.", retry_after=5)

        return assemble(layout, read)

    async def _index(self, key: str, size: int) -> StoredIndex:
        known = self._indexes.get(key)
        if known is not None:
            self._indexes.move_to_end(key)
            return known[0]
        # Whoever comes first loads it for all; that one of them leaves ends it for nobody.
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._load(key, size))
        return await asyncio.shield(loading)

    async def _load(self, key: str, size: int) -> StoredIndex:
        try:
            async with self._turns:
                blob = await self._blobs.read(key)
                index = await asyncio.to_thread(StoredIndex.load, blob, size)
            self._indexes[key] = index, len(blob)
            while len(self._indexes) > 1 and sum(length for _, length in self._indexes.values()) > MAX_BYTES:
                self._indexes.popitem(last=False)
            return index
        finally:
            del self._loading[key]
