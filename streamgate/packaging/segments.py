"""Segments of a film out of its stored sample index: a ready-made head, and byte ranges of the source.

The stored index of a film, all numbers little-endian:

* ``SGINDEX1``, the length of the source in bytes (u64), the number of tracks (u32);
* for each track: its number (u32), how many segments it has (u32), and where in the index its rows, heads and ranges begin, and
  how many bytes of heads and how many ranges there are (u64 each);
* rows, one per segment: where its head begins among the heads (u64) and its length (u32), its first range (u32) and how many
  (u32), and the bytes of all of them together (u32);
* heads: ``styp``, ``moof`` and the header of ``mdat``; ranges: offset in the source (u64) and length (u32).

Serving is looking up, not parsing. Everything is checked against the sizes before it is used, so a damaged index gives an error and
never bytes that are not the source's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MAGIC = b"SGINDEX1"
MAX_SEGMENT = 64 << 20
"""Largest segment in bytes of the source."""

COVERED = 512 << 10
"""A span up to this long (or four times its segment) is read in one piece, whatever lies between."""

MOST_BETWEEN = 16 << 20
"""Most bytes between ranges that are read for nothing, so that a crafted film cannot make requests hold many times their size."""

GAP = 64 << 10
"""Ranges that are closer together than this (bytes) are read in one piece."""

HEADER = struct.Struct("<8sQI")
TRACK = struct.Struct("<IIQQQQQ")
ROW = struct.Struct("<QIIII")
RANGE = struct.Struct("<QI")

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class SegmentLayout:
    """What a segment is made of, in order: ``head``, then ``ranges`` of the source as (offset, length). ``length``: of it all."""

    head: bytes
    ranges: tuple[tuple[int, int], ...]
    length: int

    def span(self) -> tuple[tuple[int, int], ...]:
        """Pieces of the source, as (offset, length) in ascending order, that hold every range whole: few and not much larger."""
        ordered = sorted(self.ranges)
        begin = ordered[0][0]
        end = max(offset + length for offset, length in ordered)
        if end - begin <= max(COVERED, min(4 * self.length, self.length + MOST_BETWEEN)):
            return ((begin, end - begin),)
        pieces: list[tuple[int, int]] = []
        for offset, length in ordered:
            if pieces and offset - sum(pieces[-1]) <= GAP:
                start, known = pieces[-1]
                pieces[-1] = (start, max(known, offset + length - start))
            else:
                pieces.append((offset, length))
        return tuple(pieces)


@dataclass(frozen=True, slots=True)
class _Track:
    segments: int
    rows: int
    heads: int
    heads_length: int
    ranges: int
    range_count: int


class StoredIndex:
    """A stored index in memory."""

    def __init__(self, blob: bytes, source_size: int, tracks: Mapping[int, _Track]) -> None:
        self._blob = blob
        self._source_size = source_size
        self._tracks = tracks

    @classmethod
    def load(cls, blob: bytes, source_size: int) -> StoredIndex:
        """Read a stored index. `ValueError` when it is damaged or belongs to a source of another size."""
        try:
            magic, size, count = HEADER.unpack_from(blob)
            rows = [TRACK.unpack_from(blob, HEADER.size + TRACK.size * n) for n in range(min(count, 4096))]
        except struct.error:
            raise ValueError("the index is cut off") from None
        if magic != MAGIC or size != source_size or count > 4096:
            raise ValueError("this is no index of this source")
        tracks = {}
        for number, segments, at, heads, heads_length, ranges, range_count in rows:
            end = max(at + ROW.size * segments, heads + heads_length, ranges + RANGE.size * range_count)
            if end > len(blob):
                raise ValueError("the index is cut off")
            tracks[number] = _Track(segments, at, heads, heads_length, ranges, range_count)
        return cls(blob, source_size, tracks)

    def segment(self, track: int, n: int) -> SegmentLayout:
        """Segment ``n`` (from 0) of a track. `LookupError` when there is none, `ValueError` when the index is damaged."""
        known = self._tracks[track]
        if not 0 <= n < known.segments:
            raise LookupError("there is no such segment")
        head, head_length, first, count, body = ROW.unpack_from(self._blob, known.rows + ROW.size * n)
        if head + head_length > known.heads_length or first + count > known.range_count or not count:
            raise ValueError("the index is damaged")
        at = known.ranges + RANGE.size * first
        ranges = tuple(RANGE.iter_unpack(memoryview(self._blob)[at : at + RANGE.size * count]))
        if max(offset + length for offset, length in ranges) > self._source_size:
            raise ValueError("the index points beyond the source")
        if body > MAX_SEGMENT or sum(length for _, length in ranges) != body:
            raise ValueError("the index is damaged")
        start = known.heads + head
        return SegmentLayout(self._blob[start : start + head_length], ranges, head_length + body)


def assemble(layout: SegmentLayout, read: Read) -> bytes:
    """The segment's bytes; ``read(offset, length)`` gives those of the source."""
    return b"".join((layout.head, *(read(offset, length) for offset, length in layout.ranges)))


def stored(source_size: int, tracks: Sequence[tuple[int, Sequence[tuple[bytes, int, int, int]], bytes]]) -> bytes:
    """An index to be stored. A track: its number; a row for each segment (head, first range, how many, bytes of them all); the
    ranges, packed."""
    at = HEADER.size + TRACK.size * len(tracks)
    directory, content = [], []
    for number, rows, ranges in tracks:
        heads = b"".join(head for head, *_ in rows)
        table = bytearray()
        begin = 0
        for head, first, count, body in rows:
            table += ROW.pack(begin, len(head), first, count, body)
            begin += len(head)
        heads_at, ranges_at = at + len(table), at + len(table) + len(heads)
        directory.append(TRACK.pack(number, len(rows), at, heads_at, len(heads), ranges_at, len(ranges) // RANGE.size))
        content += [bytes(table), heads, ranges]
        at = ranges_at + len(ranges)
    return b"".join((HEADER.pack(MAGIC, source_size, len(tracks)), *directory, *content))
