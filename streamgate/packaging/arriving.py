"""A source of which a part has arrived, for those who read an index: what is not there yet is believed where that does no harm.

Only key frames are believed, and only where none of what depends on them is served before they have been looked at
(`cutting.IndexedTrack.needed`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from streamgate.packaging.mp4boxes import MAX_BOXES, MAX_MOOV, IndexRefused, damaged

MOST_LIES = 1000
"""Key frames that are none, beyond which a source is not read while it arrives."""

_BEGINNINGS = frozenset((b"ftyp", b"moov", b"free", b"skip", b"wide", b"pnot", b"uuid", b"mdat"))


class Arriving:
    """Reads a source of ``size`` bytes of which ``extents`` are there, as (begin, end), the first of them from 0 on.

    ``looked_at``: end of the bytes whose claimed key frames an earlier reader has looked at; ``lies``: where those begin that
    were none.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        size: int,
        extents: Sequence[tuple[int, int]],
        looked_at: int = 0,
        lies: Sequence[int] = (),
    ) -> None:
        self._read = read
        self._extents = tuple(extents)
        self._looked_at = looked_at
        self._lies = set(lies)
        self.size = size

    def __call__(self, offset: int, length: int) -> bytes:
        """The bytes at ``offset``, fewer where what has arrived ends."""
        for begin, end in self._extents:
            if begin <= offset < end:
                length = min(length, end - offset)
                return self._read(offset, length) if length > 0 else b""
        return b""

    @property
    def arrived(self) -> int:
        """Bytes from the beginning on that are there."""
        return self._extents[0][1]

    @property
    def lies(self) -> tuple[int, ...]:
        """Where samples begin that are claimed to be key frames and are none, ascending."""
        return tuple(sorted(self._lies))

    def has(self, offset: int, length: int) -> bool:
        """Whether all of these bytes are there."""
        return any(begin <= offset and offset + length <= end for begin, end in self._extents)

    def known(self, offset: int, length: int) -> bool | None:
        """Whether the sample there is a key frame, as far as that is known or believed; None: look at it, and tell `found`."""
        if offset in self._lies:
            return False
        return True if offset + length <= self._looked_at or not self.has(offset, length) else None

    def found(self, offset: int, *, key: bool) -> None:
        """A sample has been looked at. Raises `IndexRefused` when too many were said to be what they are not."""
        if not key:
            self._lies.add(offset)
            if len(self._lies) > MOST_LIES:
                raise IndexRefused("no_keyframes", "The file's list of key frames is wrong.")


def wanted_for_index(read: Arriving) -> int:
    """The end of the bytes that must be there before the index of an MP4 or MOV can be read; 0 when it can be now.

    More may be wanted once they are. Raises `IndexRefused` for a file that has no index, or is something else.
    """
    return _index(read)[0]


def fragments_follow(read: Arriving) -> bool:
    """Whether the index, which is there, says that fragments go on where it ends (``mvex``)."""
    _, at, end = _index(read)
    for _ in range(MAX_BOXES):
        head = read(at, 16)
        if at + 8 > end or len(head) < 8:
            return False
        if head[4:8] == b"mvex":
            return True
        _, length = _box(head, end - at)
        if length < 8:
            return False
        at += length
    return False


def _index(read: Arriving) -> tuple[int, int, int]:
    """Bytes that are wanted first, as `wanted_for_index` says; where the content of the ``moov`` begins and ends."""
    at = 0
    for _ in range(MAX_BOXES):
        if at >= read.size:
            break
        if not read.has(at, min(16, read.size - at)):
            return min(at + 16, read.size), 0, 0
        head = read(at, 16)
        if len(head) < 8:
            break
        kind = head[4:8]
        before, length = _box(head, read.size - at)
        if (at == 0 and kind not in _BEGINNINGS) or length < before:
            break
        if kind == b"moov":
            if length > MAX_MOOV or at + length > read.size:
                raise damaged("moov")
            return 0 if read.has(at, length) else at + length, at + before, at + length
        at += length
    raise IndexRefused("no_moov", "The file is no MP4 or MOV whose index can be read before its end.")


def _box(head: bytes, left: int) -> tuple[int, int]:
    """The lengths of a box's header and of it all; a box without one takes what is ``left``."""
    (length,) = struct.unpack_from(">I", head)
    if length == 1 and len(head) == 16:
        return 16, int.from_bytes(head[8:16], "big")
    return 8, length or left
