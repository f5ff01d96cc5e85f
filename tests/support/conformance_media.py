"""A strict reading of CMAF init and media segments (ISO/IEC 14496-12, 23000-19): what is not exactly right fails."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamgate.media.model import PlannedRendition

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"edts", b"dinf"}


@dataclass(frozen=True)
class SampleRow:
    """One row of a track run; times in ticks."""

    duration: int
    size: int
    flags: int
    offset: int

    @property
    def key(self) -> bool:
        """A sync sample (sample_is_non_sync_sample is 0)."""
        return not self.flags & 0x10000


@dataclass(frozen=True)
class Fragment:
    """A media segment: when it decodes, and its samples."""

    sequence: int
    decode_time: int
    rows: tuple[SampleRow, ...]
    data: bytes

    def shown(self) -> list[int]:
        """Composition times in ticks, in decoding order, before the edit list."""
        times, at = [], self.decode_time
        for row in self.rows:
            times.append(at + row.offset)
            at += row.duration
        return times


def boxes(data: bytes, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    """(path, payload) of every box, depth first; fails when sizes do not add up."""
    at = 0
    while at < len(data):
        assert len(data) - at >= 8, "half a box header"
        size, kind = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at, f"box {kind!r} of {size} bytes does not fit"
        payload = data[at + 8 : at + size]
        yield (*path, kind), payload
        if kind in CONTAINERS:
            yield from boxes(payload, (*path, kind))
        at += size


def only(data: bytes, *path: bytes) -> bytes:
    """The payload of the one box at a path."""
    found = [payload for where, payload in boxes(data) if where == path]
    assert len(found) == 1, f"{len(found)} boxes at {path}"
    return found[0]


def check_init(rendition: PlannedRendition) -> int:
    """An init segment is what its rendition says; the media time of its edit list (ticks; 0 without one)."""
    init = rendition.init
    assert [path[0] for path, _ in boxes(init) if len(path) == 1] == [b"ftyp", b"moov"]
    assert b"cmfc" in only(init, b"ftyp")
    mdhd = only(init, b"moov", b"trak", b"mdia", b"mdhd")
    assert struct.unpack_from(">I", mdhd, 12)[0] == rendition.timescale
    entry = only(init, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    assert rendition.config in entry
    edits = [payload for where, payload in boxes(init) if where[-1] == b"elst"]
    if rendition.kind == "audio":
        assert not edits
        return 0
    assert struct.unpack_from(">HH", entry, 8 + 8 + 24)[0] == rendition.width
    assert struct.unpack_from(">HH", entry, 8 + 8 + 24)[1] == rendition.height
    (edit,) = edits
    count, _, media_time, rate, _ = struct.unpack_from(">IIiHH", edit, 4)
    assert (count, rate) == (1, 1)
    assert media_time >= 0
    return int(media_time)


def read_segment(data: bytes) -> Fragment:
    """A media segment of one track run."""
    assert [path[0] for path, _ in boxes(data) if len(path) == 1] == [b"styp", b"moof", b"mdat"]
    (sequence,) = struct.unpack(">I", only(data, b"moof", b"mfhd")[4:])
    tfdt = only(data, b"moof", b"traf", b"tfdt")
    assert tfdt[0] == 1, "tfdt of 64 bits"
    (decode_time,) = struct.unpack(">Q", tfdt[4:])
    defaults = _defaults(only(data, b"moof", b"traf", b"tfhd"))
    rows, data_offset = _run(only(data, b"moof", b"traf", b"trun"), defaults)
    mdat = only(data, b"mdat")
    assert sum(row.size for row in rows) == len(mdat), "samples and media data differ in length"
    moof_at = data.index(b"moof") - 4
    assert moof_at + data_offset == len(data) - len(mdat), "the data offset misses the media data"
    return Fragment(sequence, decode_time, rows, mdat)


def check_rendition(rendition: PlannedRendition, segments: list[bytes]) -> list[Fragment]:
    """Every segment covers exactly its span, begins with a key frame, and holds no other one."""
    media_time = check_init(rendition)
    assert len(segments) == len(rendition.boundaries) - 1
    fragments = [read_segment(segment) for segment in segments]
    for number, fragment in enumerate(fragments):
        start, end = rendition.boundaries[number : number + 2]
        assert fragment.sequence == number + 1
        assert fragment.decode_time == start, f"segment {number}"
        assert sum(row.duration for row in fragment.rows) == end - start, f"segment {number}"
        assert all(row.duration > 0 and row.offset >= 0 for row in fragment.rows)
        assert fragment.rows[0].key
        if rendition.kind == "video":
            assert not any(row.key for row in fragment.rows[1:])
            times = sorted(time - media_time for time in fragment.shown())
            assert times[0] == start, f"segment {number} is shown from {times[0]}, not {start}"
            assert times[-1] < end
            assert len(set(times)) == len(times)
            check_lengths(fragment)
    return fragments


def check_lengths(fragment: Fragment) -> None:
    """Every sample is a row of length-prefixed NAL units (ISO/IEC 14496-15), none of them a parameter set of another kind."""
    at = 0
    for row in fragment.rows:
        end = at + row.size
        while at < end:
            (length,) = struct.unpack_from(">I", fragment.data, at)
            kind = fragment.data[at + 4] & 0x1F
            assert 0 < length <= end - at - 4, "a NAL unit does not fit its sample"
            assert kind in {1, 5, 6}, f"NAL unit type {kind} inside a segment"
            assert (kind != 5) or row.key
            at += 4 + length
        assert at == end


def _defaults(tfhd: bytes) -> tuple[int, int]:
    flags = int.from_bytes(tfhd[1:4], "big")
    assert flags & 0x20000, "default-base-is-moof"
    at, duration, sample_flags = 8, 0, 0
    if flags & 0x08:
        (duration,) = struct.unpack_from(">I", tfhd, at)
        at += 4
    if flags & 0x20:
        (sample_flags,) = struct.unpack_from(">I", tfhd, at)
    return duration, sample_flags


def _run(trun: bytes, defaults: tuple[int, int]) -> tuple[tuple[SampleRow, ...], int]:
    flags = int.from_bytes(trun[1:4], "big")
    assert trun[0] == 0, "offsets that are never negative need no version 1"
    assert flags & 0x01, "data offset"
    count, data_offset = struct.unpack_from(">Ii", trun, 4)
    at, rows = 12, []
    first_flags = defaults[1]
    if flags & 0x04:
        (first_flags,) = struct.unpack_from(">I", trun, at)
        at += 4
    for number in range(count):
        values = {0x100: defaults[0], 0x200: 0, 0x400: defaults[1] if number else first_flags, 0x800: 0}
        for flag in values:
            if flags & flag:
                (values[flag],) = struct.unpack_from(">I", trun, at)
                at += 4
        rows.append(SampleRow(*values.values()))
    assert at == len(trun)
    return tuple(rows), data_offset
