"""Stored sample indexes in the object store: of each no more is read, and kept in memory, than is asked for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sized
from typing import Generic, TypeVar

from streamgate.packaging.segments import HEADER, SegmentLayout, StoredIndex
from streamgate.ports.storage import BlobStore

MAX_BYTES = 64 << 20
"""Bytes of indexes that are kept in memory."""

BLOCK = 64 << 10
"""Bytes of an index that are read at a time: a minute or two of a film."""

READ_AT_ONCE = 16
"""Pieces of indexes that are read at the same time; those of other films wait."""

K = TypeVar("K")
V = TypeVar("V", bound=Sized)


class _Kept(Generic[K, V]):
    """Values by key, up to so many bytes; each is loaded once for all who want it at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._length = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}
        self._turns = asyncio.Semaphore(READ_AT_ONCE)

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The value; raises what ``load`` raises. That one of those who wait leaves ends nothing."""
        known = self._values.get(key)
        if known is not None:
            self._values.move_to_end(key)
            return known
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._load(key, load))
            loading.add_done_callback(_heard)
        return await asyncio.shield(loading)

    async def _load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        try:
            async with self._turns:
                value = await load()
        finally:
            del self._loading[key]
        self._values[key] = value
        self._length += len(value)
        while self._length > self._most and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._length -= len(dropped)
        return value


def _heard(loading: asyncio.Task[V]) -> None:
    """What went wrong is raised to those who wait; nobody may be left."""
    if not loading.cancelled():
        loading.exception()


class Indexes:
    """What segments of films are made of."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._fronts: _Kept[str, StoredIndex] = _Kept(MAX_BYTES // 2)
        self._blocks: _Kept[tuple[str, int], bytes] = _Kept(MAX_BYTES // 2)

    async def layout(self, key: str, size: int, track: int, number: int) -> SegmentLayout:
        """Segment ``number`` (from 0) of a track of the source of ``size`` bytes whose index is the object ``key``.

        `LookupError` when there is none, `ValueError` when the index is damaged; raises as `BlobStore.read`.
        """
        index = await self._fronts.get(key, lambda: self._front(key, size))
        offset, length = index.record(track, number)
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        blocks = [await self._block(key, block, index.length) for block in range(first, last + 1)]
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        begin = offset - first * BLOCK
        return index.layout(track, number, data[begin : begin + length])

    async def _front(self, key: str, size: int) -> StoredIndex:
        header = await self._blobs.read(key, 0, HEADER.size)
        return StoredIndex.load(await self._blobs.read(key, 0, StoredIndex.front_length(header)), size)

    async def _block(self, key: str, number: int, end: int) -> bytes:
        at = number * BLOCK
        return await self._blocks.get((key, number), lambda: self._blobs.read(key, at, min(BLOCK, end - at)))
