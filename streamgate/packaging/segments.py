"""Segments of a film out of its stored sample index: what is told of their samples, and byte ranges of the source.

The stored index of a film, all numbers but those of samples little-endian:

* its front: ``SGINDEX2``, the lengths of the source and of the index (u64), of the front, and the number of tracks (u32); for
  each track its number (u32), how many segments it has (u32), where in the index its rows and its records begin and how long all
  records are (u64 each), and 1 where its ranges are wide (u32); the rows of all tracks, one for each segment (`ROW`);
* records, one for each segment: what its ``moof`` tells of each sample (`cmaf.ROWS` and the other forms), then its ranges.

A row: where its record begins among the track's (u64), the decoding time of the first sample (u64), where in the source the
first of its ranges begins (u64), the length of the record, the form, the duration of samples that have one, how many samples and
how many ranges it has, and the bytes of all samples (u32 each). A range: how far after the first it begins (u32, where wide
u64), and its length (u32), which is left out where each sample is a range.

Serving is looking up, not parsing: the front, and of the rest no more than a segment needs. Everything is checked against the sizes
before it is used, so a damaged index gives an error and never bytes that are not the source's.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, sub

from streamgate.packaging.cmaf import ROW_BYTES, media_head

MAGIC = b"SGINDEX2"
MAX_SEGMENT = 64 << 20
"""Largest segment in bytes of the source."""

MAX_INDEX = 48 << 20
"""Largest index in bytes."""

COVERED = 512 << 10
"""As many bytes between the ranges of a segment are read with it in one piece, however few the ranges are."""

MOST_BETWEEN = 16 << 20
"""Most bytes between ranges that are read for nothing, so that a crafted film cannot make requests hold many times their size."""

GAP = 64 << 10
"""Ranges that are closer together than this (bytes, on average) are read in one piece."""

NEAR = 16 << 10
"""The same where a read costs no more than a call of the system: copying so much takes as long."""

HEADER = struct.Struct("<8sQQII")
TRACK = struct.Struct("<IIQQQI")
ROW = struct.Struct("<QQQIIIIII")
RANGE = struct.Struct("<II")
WIDE_RANGE = struct.Struct("<QI")

MAX_TRACKS = 4096
_SIZE_AT = (1, 0, 0)
"""Which number of what is told of a sample is its size, by form."""

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class SegmentLayout:
    """What a segment is made of, in order: ``head``, then ranges of the source. ``length``: of it all.

    Where the ranges begin and end, in bytes from ``base``, none before it; there is at least one. ``end``: of the last of them.
    """

    head: bytes
    base: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    end: int
    length: int

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The ranges as (offset, length)."""
        lengths = map(sub, self.ends, self.starts)
        return tuple(zip([self.base + start for start in self.starts], lengths, strict=True))

    def span(self) -> tuple[tuple[int, int], ...]:
        """Pieces of the source, as (offset, length) in ascending order, that hold every range whole: few, and no more than
        `MOST_BETWEEN` larger."""
        if self._between() <= min(MOST_BETWEEN, max(COVERED, GAP * len(self.starts))):
            return (self.covering,)
        near = min(GAP, MOST_BETWEEN // len(self.starts))
        pieces: list[tuple[int, int]] = []
        for start, end in sorted(zip(self.starts, self.ends, strict=True)):
            if pieces and start - pieces[-1][1] <= near:
                pieces[-1] = (pieces[-1][0], max(pieces[-1][1], end))
            else:
                pieces.append((start, end))
        return tuple([(self.base + start, end - start) for start, end in pieces])

    @property
    def covering(self) -> tuple[int, int]:
        """The one piece of the source, as (offset, length), that holds every range, however much lies between."""
        return self.base, self.end

    @property
    def is_close(self) -> bool:
        """Whether the ranges lie so close together (`NEAR`) that reading what is between them takes less than reading them one by
        one, where a read costs little."""
        return self._between() <= NEAR * len(self.starts)

    def joined(self, pieces: Sequence[tuple[int, bytes | memoryview]]) -> bytes:
        """The segment, of the bytes of `span` as (offset, bytes); `ValueError` when they do not hold every range."""
        if len(pieces) == 1 and pieces[0][0] == self.base:
            # Slices of a view are not copied before they are joined.
            data = memoryview(pieces[0][1])
            parts = [data[start:end] for start, end in zip(self.starts, self.ends, strict=True)]
            made = b"".join((self.head, *parts))
        else:
            begins = [offset for offset, _ in pieces]
            made = b"".join((self.head, *(_out_of(begins, pieces, *wanted) for wanted in self.ranges)))
        if len(made) != self.length:
            raise ValueError("the source is not complete")
        return made

    def _between(self) -> int:
        return self.end - (self.length - len(self.head))


def _out_of(
    begins: Sequence[int], pieces: Sequence[tuple[int, bytes | memoryview]], offset: int, length: int
) -> bytes | memoryview:
    start, data = pieces[max(0, bisect_right(begins, offset) - 1)]
    if not 0 <= offset - start <= offset - start + length <= len(data):
        raise ValueError("the source is not complete")
    return data[offset - start : offset - start + length]


@dataclass(frozen=True, slots=True)
class _Track:
    segments: int
    rows: int
    records: int
    length: int
    wide: bool


class StoredIndex:
    """The front of a stored index in memory; whoever has it reads records by `record` and understands them by `layout`."""

    def __init__(self, front: bytes, source_size: int, tracks: Mapping[int, _Track], length: int) -> None:
        self.length = length
        """Of the whole index, in bytes."""
        self._front = front
        self._source_size = source_size
        self._tracks = tracks

    def __len__(self) -> int:
        """Bytes that it holds in memory."""
        return len(self._front)

    @staticmethod
    def front_length(beginning: bytes) -> int:
        """How long the front of an index is whose `HEADER` is this, in bytes; `ValueError` when it is none."""
        try:
            magic, _, whole, length, count = HEADER.unpack_from(beginning)
        except struct.error:
            raise ValueError("the index is cut off") from None
        if magic != MAGIC or count > MAX_TRACKS or not HEADER.size <= length <= whole <= MAX_INDEX:
            raise ValueError("this is no index of this source")
        return int(length)

    @classmethod
    def load(cls, front: bytes, source_size: int) -> StoredIndex:
        """Read the front of an index (or all of it). `ValueError` when it is damaged or belongs to a source of another size."""
        length = cls.front_length(front)
        _, size, whole, _, count = HEADER.unpack_from(front)
        if size != source_size:
            raise ValueError("this is no index of this source")
        if length > len(front) or HEADER.size + TRACK.size * count > length:
            raise ValueError("the index is cut off")
        tracks = {}
        for n in range(count):
            number, segments, rows, records, total, wide = TRACK.unpack_from(front, HEADER.size + TRACK.size * n)
            if rows + ROW.size * segments > length or records + total > whole:
                raise ValueError("the index is cut off")
            tracks[number] = _Track(segments, rows, records, total, bool(wide))
        return cls(front, source_size, tracks, whole)

    def record(self, track: int, n: int) -> tuple[int, int]:
        """Where in the index the record of segment ``n`` (from 0) of a track lies: offset and length in bytes.

        `LookupError` when there is no such segment, `ValueError` when the index is damaged.
        """
        known, row = self._row(track, n)
        if row[0] + row[3] > known.length:
            raise ValueError("the index is damaged")
        return known.records + row[0], row[3]

    def layout(self, track: int, n: int, record: bytes) -> SegmentLayout:
        """Segment ``n`` (from 0) of a track, by its record; raises as `record`."""
        known, (_, decode_time, base, length, form, duration, samples, ranges, body) = self._row(track, n)
        if form >= len(ROW_BYTES) or not 0 < ranges <= samples or body > MAX_SEGMENT or length != len(record):
            raise ValueError("the index is damaged")
        told = samples * ROW_BYTES[form]
        if length != told + ranges * ((8 if known.wide else 4) + (4 if ranges < samples else 0)):
            raise ValueError("the index is damaged")
        rows = record[:told]
        sizes = struct.unpack(f">{told // 4}I", rows)[_SIZE_AT[form] :: ROW_BYTES[form] // 4]
        starts, lengths = _ranges(record[told:], ranges, sizes if ranges == samples else None, known.wide)
        if sum(sizes) != body or (lengths is not sizes and sum(lengths) != body):
            raise ValueError("the index is damaged")
        ends = tuple(map(add, starts, lengths))
        end = max(ends)
        if base + end > self._source_size:
            raise ValueError("the index points beyond the source")
        head = media_head(n + 1, decode_time, samples, rows, body, form=form, duration=duration)
        return SegmentLayout(head, base, starts, ends, end, len(head) + body)

    def segment(self, track: int, n: int) -> SegmentLayout:
        """Segment ``n`` of a track, where `load` was given all of the index; raises as `record`."""
        at, length = self.record(track, n)
        return self.layout(track, n, self._front[at : at + length])

    def _row(self, track: int, n: int) -> tuple[_Track, tuple[int, ...]]:
        known = self._tracks[track]
        if not 0 <= n < known.segments:
            raise LookupError("there is no such segment")
        return known, ROW.unpack_from(self._front, known.rows + ROW.size * n)


def _ranges(
    packed: bytes, count: int, lengths: tuple[int, ...] | None, wide: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where ranges begin, and their lengths; ``lengths``: where they are not told."""
    if lengths is not None:
        return struct.unpack(f"<{count}{'Q' if wide else 'I'}", packed), lengths
    known = struct.unpack("<" + "QI" * count, packed) if wide else struct.unpack(f"<{2 * count}I", packed)
    return known[::2], known[1::2]


def assemble(layout: SegmentLayout, read: Read) -> bytes:
    """The segment's bytes; ``read(offset, length)`` gives those of the source."""
    return b"".join((layout.head, *(read(offset, length) for offset, length in layout.ranges)))


@dataclass(frozen=True, slots=True)
class StoredTrack:
    """A track to be stored: its number; a `ROW` for each segment; their records, one after the other, in pieces of any length."""

    number: int
    rows: bytes
    records: Sequence[bytes | memoryview]
    wide: bool = False


def stored(source_size: int, tracks: Sequence[StoredTrack]) -> bytes:
    """An index to be stored."""
    rows_at = HEADER.size + TRACK.size * len(tracks)
    front = rows_at + sum(len(track.rows) for track in tracks)
    records_at = front
    directory = []
    for track in tracks:
        count, length = len(track.rows) // ROW.size, sum(map(len, track.records))
        directory.append(TRACK.pack(track.number, count, rows_at, records_at, length, track.wide))
        rows_at, records_at = rows_at + len(track.rows), records_at + length
    header = HEADER.pack(MAGIC, source_size, records_at, front, len(tracks))
    records = (piece for track in tracks for piece in track.records)
    return b"".join((header, *directory, *(track.rows for track in tracks), *records))
