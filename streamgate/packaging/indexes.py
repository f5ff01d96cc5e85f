"""Stored sample indexes in the object store: of each no more is read, and kept in memory, than is asked for.

An index is a folder of objects: its front, and what follows it in pieces of `PIECE` bytes. A film plays as soon as the front and
the pieces of its first minute are there; the others come a moment later, so that a long index keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

from streamgate.domain.errors import NotFound, Unavailable
from streamgate.packaging.segments import HEADER, ROW, TRACK, SegmentLayout, StoredIndex
from streamgate.ports.storage import BlobStore

MAX_BYTES = 64 << 20
"""Bytes of indexes that are kept in memory."""

PIECE = 512 << 10
"""Bytes of an object of an index."""

BLOCK = 64 << 10
"""Bytes of an index that are read at a time, a whole part of a piece: a minute or two of a film."""

READ_AT_ONCE = 16
"""Pieces of indexes that are read at the same time; those of other films wait."""

OPENING = 15
"""Segments of each track whose pieces are stored before a film plays."""

SMALL = 2 << 20
"""Bytes of an index that is stored as a whole before."""

PATIENCE_S = 1.0
"""Seconds that a segment waits for a piece of its film's index that is not there yet."""

AGAIN_S = 0.1

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

    def peek(self, key: K) -> V | None:
        """The value if it is there; counts as a use."""
        known = self._values.get(key)
        if known is not None:
            self._values.move_to_end(key)
        return known

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """The value; raises what ``load`` raises. That one of those who wait leaves ends nothing."""
        known = self.peek(key)
        if known is not None:
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


@dataclass(frozen=True, slots=True)
class Divided:
    """An index as the objects that it is stored as. ``pieces``: how many there are beside the front; ``first``: those of them
    without which the film does not begin to play."""

    key: str
    index: bytes
    front: int
    pieces: int
    first: frozenset[int]

    def opening(self) -> Iterator[tuple[str, bytes]]:
        """Keys and bytes of what must be there before the film plays."""
        yield front_key(self.key), self.index[: self.front]
        yield from map(self._piece, sorted(self.first))

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """The same of all others."""
        yield from (self._piece(number) for number in range(self.pieces) if number not in self.first)

    def _piece(self, number: int) -> tuple[str, bytes]:
        at = self.front + number * PIECE
        return piece_key(self.key, number), self.index[at : at + PIECE]


def divided(key: str, index: bytes) -> Divided:
    """How an index is stored whose objects have keys below ``key``. `ValueError` for what is no index."""
    front = StoredIndex.front_length(index)
    _, size, length, _, tracks = HEADER.unpack_from(index)
    StoredIndex.load(index, size)
    if length != len(index):
        raise ValueError("the index is cut off")
    pieces = -(-(length - front) // PIECE)
    if length <= SMALL:
        return Divided(key, index, front, pieces, frozenset(range(pieces)))
    first: set[int] = set()
    for track in range(tracks):
        _, segments, rows, records, _, _ = TRACK.unpack_from(index, HEADER.size + TRACK.size * track)
        if segments:
            last = ROW.unpack_from(index, rows + ROW.size * (min(OPENING, segments) - 1))
            begin, end = records - front, records - front + last[0] + last[3]
            first.update(range(max(0, begin // PIECE), min(pieces, -(-end // PIECE))))
    return Divided(key, index, front, pieces, frozenset(first))


def front_key(key: str) -> str:
    """The storage key of an index's front."""
    return f"{key}/front"


def piece_key(key: str, number: int) -> str:
    """The storage key of a piece of an index, from 0."""
    return f"{key}/{number}"


class PieceMissing(Unavailable):
    """A piece of an index is not there: not yet, or no more."""


def _place(index: StoredIndex, track: int, number: int) -> tuple[int, int]:
    """Where the record of a segment lies in what follows the front; raises as `StoredIndex.record`."""
    offset, length = index.record(track, number)
    if offset < len(index):
        raise ValueError("the index is damaged")
    return offset - len(index), length


def _blocks(offset: int, length: int) -> range:
    """The blocks that hold a record."""
    return range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)


def _cut(blocks: Sequence[bytes], offset: int, length: int) -> bytes:
    """The record out of its blocks."""
    begin = offset % BLOCK
    return (blocks[0] if len(blocks) == 1 else b"".join(blocks))[begin : begin + length]


class Indexes:
    """What segments of films are made of."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._fronts: _Kept[str, StoredIndex] = _Kept(MAX_BYTES // 2)
        self._blocks: _Kept[tuple[str, int], bytes] = _Kept(MAX_BYTES // 2)

    async def layout(self, key: str, size: int, track: int, number: int) -> SegmentLayout:
        """Segment ``number`` (from 0) of a track of the source of ``size`` bytes whose index lies below ``key``.

        `LookupError` when there is none, `NotFound` without an index, `ValueError` when it is damaged, `PieceMissing` when the
        piece that tells of the segment does not come in time; raises as `BlobStore.read`.
        """
        index = await self._fronts.get(key, lambda: self._front(key, size))
        place = _place(index, track, number)
        end = index.length - len(index)
        blocks = [await self._block(key, block, end) for block in _blocks(*place)]
        return index.layout(track, number, _cut(blocks, *place))

    def at_hand(self, key: str, track: int, number: int) -> SegmentLayout | None:
        """The same where all of it is in memory; None says nothing."""
        index = self._fronts.peek(key)
        if index is None:
            return None
        place = _place(index, track, number)
        blocks = []
        for block in _blocks(*place):
            found = self._blocks.peek((key, block))
            if found is None:
                return None
            blocks.append(found)
        return index.layout(track, number, _cut(blocks, *place))

    async def _front(self, key: str, size: int) -> StoredIndex:
        front = await self._blobs.read(front_key(key))
        if len(front) != StoredIndex.front_length(front):
            raise ValueError("the index is cut off")
        return StoredIndex.load(front, size)

    async def _block(self, key: str, number: int, end: int) -> bytes:
        """A block of what follows the front. Whoever waits for a piece that is not there yet keeps no other from reading."""
        piece, inside = divmod(number * BLOCK, PIECE)
        length = min(BLOCK, end - number * BLOCK)
        until = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await self._blocks.get(
                    (key, number), lambda: self._blobs.read(piece_key(key, piece), inside, length)
                )
            except NotFound:
                if asyncio.get_running_loop().time() >= until:
                    raise PieceMissing("This part of the film's index is not there yet.", retry_after=1) from None
            await asyncio.sleep(AGAIN_S)
