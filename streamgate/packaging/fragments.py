"""Samples of a fragmented MP4 (ISO/IEC 14496-12, 8.8): what its ``moof`` boxes say, as if one table had said it.

Indexes of fragments (``sidx``, ``mfra``) are not needed and not believed. A fragment without ``tfdt`` follows the one before it;
one that begins later makes the last sample before it last until then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streamgate.packaging.mp4boxes import IndexRefused, Movie, Read, boxes, damaged, first, needed, unpack, version
from streamgate.packaging.sampletables import MAX_DURATION_S, MAX_SAMPLES, Numbers, Samples, read_samples

MAX_FRAGMENT = 16 << 20
"""Largest ``moof`` in bytes."""

MAX_FRAGMENTS = 256 << 20
"""Bytes of all ``moof`` boxes together."""

_NO_SYNC_SAMPLE = 0x10000
_DURATION, _SIZE, _FLAGS, _OFFSET = 0x100, 0x200, 0x400, 0x800
_COLUMNS = (_DURATION, _SIZE, _FLAGS, _OFFSET)


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What samples are like unless a run says otherwise: coding (from 1), duration, size, flags."""

    coding: int
    duration: int
    size: int
    flags: int


@dataclass(slots=True)
class _Runs:
    """The samples of a track so far, an array for each run: rows of offset, size, duration, flags, composition offset. ``begins``:
    decoding times that fragments state, by the number of the sample they begin with."""

    defaults: _Defaults
    rows: list[Numbers] = field(default_factory=list)
    begins: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0


def track_id(trak: memoryview) -> int:
    """The identifier by which fragments name a ``trak``."""
    header = needed(trak, b"tkhd")
    return unpack(">I", header, 20 if version(header) == 1 else 12)[0]


class Fragments:
    """All fragments of a file. Raises `IndexRefused` for what does not fit."""

    def __init__(self, read: Read, size: int, movie: Movie) -> None:
        self._size = size
        self._tracks = {
            identifier: _Runs(_Defaults(coding, duration, length, flags))
            for identifier, coding, duration, length, flags in (
                unpack(">5I", box.content, 4) for box in boxes(needed(movie.content, b"mvex")) if box.kind == b"trex"
            )
        }
        self._left = MAX_SAMPLES
        if sum(length for _, length in movie.fragments) > MAX_FRAGMENTS:
            raise damaged("moof")
        for offset, length in movie.fragments:
            if length > MAX_FRAGMENT:
                raise damaged("moof")
            self._fragment(memoryview(read(offset, length)), offset)

    def samples(self, identifier: int, tables: memoryview, timescale: int) -> Samples:
        """The samples of a track: those of its own tables (``stbl``), if any, and then those of the fragments."""
        runs = self._tracks.get(identifier)
        sizes = first(tables, b"stsz")
        before = read_samples(tables, self._size, timescale) if sizes and unpack(">I", sizes, 8)[0] else None
        if runs is None or not runs.rows:
            if before is None:
                raise IndexRefused("table_short", "The track has no samples.")
            return before
        made = _samples(runs, self._size, before)
        if any(bool((rows[:, 4] < 0).any()) for rows in runs.rows):
            # FFmpeg shows such tracks later than they say (by the largest of these offsets); encoded rungs would not fit.
            raise IndexRefused(
                "signed_offsets", "Pictures are shown before they are decoded; every rendition is encoded."
            )
        if int(made.decoded[-1]) > MAX_DURATION_S * timescale:
            raise IndexRefused(
                "too_long", "The track says that it is longer than two days; every rendition is encoded."
            )
        return made

    def _fragment(self, content: memoryview, at: int) -> None:
        (whole,) = boxes(content)
        end = at
        for box in boxes(whole.content):
            if box.kind == b"traf":
                end = self._track_fragment(box.content, at, end)

    def _track_fragment(self, traf: memoryview, moof: int, end: int) -> int:
        """Read a ``traf``; where the data of its last run ends, which is where the next one's begins unless it says otherwise."""
        header = needed(traf, b"tfhd")
        flags, identifier = unpack(">2I", header, 0)
        runs = self._tracks.get(identifier)
        if runs is None:
            raise damaged("tfhd")
        base, defaults = _header(header, flags, runs.defaults, moof if flags & 0x20000 else end)
        if defaults.coding != 1:
            raise IndexRefused(
                "stsd_entries", "The coding changes in the middle of the track; every rendition is encoded."
            )
        begin = first(traf, b"tfdt")
        if begin is not None:
            runs.begins.append((runs.count, unpack(">Q" if version(begin) == 1 else ">I", begin, 4)[0]))
        end = base
        for box in boxes(traf):
            if box.kind == b"trun":
                rows = self._run(box.content, base, end, defaults)
                if len(rows):
                    runs.rows.append(rows)
                    runs.count += len(rows)
                    end = int(rows[-1, 0] + rows[-1, 1])
        return end

    def _run(self, run: memoryview, base: int, end: int, defaults: _Defaults) -> Numbers:
        flags, count = unpack(">2I", run, 0)
        at = 8
        if flags & 0x1:
            end = base + unpack(">i", run, at)[0]
            at += 4
        first_flags = None
        if flags & 0x4:
            (first_flags,) = unpack(">I", run, at)
            at += 4
        columns = [column for column in _COLUMNS if flags & column]
        self._left -= count
        if self._left < 0:
            raise IndexRefused("too_many_samples", "The track has too many samples to be served as it is.")
        if at + 4 * len(columns) * count > len(run) or (not flags & _SIZE and defaults.size * count > self._size):
            raise damaged("trun")
        table = np.frombuffer(run, ">u4", len(columns) * count, at).reshape(count, len(columns)).astype(np.int64)
        rows = np.zeros((count, 5), np.int64)
        rows[:, 1:4] = defaults.size, defaults.duration, defaults.flags
        if count and first_flags is not None:
            rows[0, 3] = first_flags
        places = {_DURATION: 2, _SIZE: 1, _FLAGS: 3, _OFFSET: 4}
        for number, column in enumerate(columns):
            rows[:, places[column]] = table[:, number]
        rows[:, 4] = np.where(rows[:, 4] >= 1 << 31, rows[:, 4] - (1 << 32), rows[:, 4])
        rows[:, 0] = end + np.cumsum(rows[:, 1]) - rows[:, 1]
        return rows


def _header(header: memoryview, flags: int, usual: _Defaults, base: int) -> tuple[int, _Defaults]:
    """What a ``tfhd`` says: where data offsets count from, and the defaults of its runs."""
    at = 8
    if flags & 0x1:
        (base,) = unpack(">Q", header, at)
        at += 8
    if base >= 1 << 62:
        raise damaged("tfhd")
    values = [usual.coding, usual.duration, usual.size, usual.flags]
    for number, flag in enumerate((0x2, 0x8, 0x10, 0x20)):
        if flags & flag:
            (values[number],) = unpack(">I", header, at)
            at += 4
    return base, _Defaults(*values)


def _samples(runs: _Runs, file_size: int, before: Samples | None) -> Samples:
    rows = np.concatenate(runs.rows)
    offsets, sizes, durations = rows[:, 0], rows[:, 1], rows[:, 2]
    keys = (rows[:, 3] & _NO_SYNC_SAMPLE) == 0
    total = int(sizes.sum()) + (int(before.sizes.sum()) if before is not None else 0)
    if total > file_size:
        raise IndexRefused(
            "table_mismatch", "The file's index claims more bytes than the file has; every rendition is encoded."
        )
    if int(offsets.min()) < 0 or int((offsets + sizes).max()) > file_size:
        raise IndexRefused("truncated", "The file ends before its last picture or sound; every rendition is encoded.")
    start = 0 if before is None else int(before.decoded[-1] + before.durations[-1])
    decoded = _decoded(durations, runs.begins, start)
    following = np.diff(decoded)
    if before is not None:
        offsets, sizes = np.append(before.offsets, offsets), np.append(before.sizes, sizes)
        keys = np.append(before.keys, keys)
        following = np.append(np.diff(before.decoded), np.append(decoded[0] - before.decoded[-1], following))
        shown = np.append(before.shown, decoded + rows[:, 4])
        decoded = np.append(before.decoded, decoded)
    else:
        shown = decoded + rows[:, 4]
    last = int(durations[-1]) or (int(following[-1]) if len(following) else 0)
    lasting = np.append(following, last)
    if bool((lasting <= 0).any()) or bool((lasting >= 1 << 31).any()):
        raise IndexRefused("table_mismatch", "Some samples of the track last no time; every rendition is encoded.")
    return Samples(offsets, sizes, decoded, shown, lasting, keys, stated=True)


def _decoded(durations: Numbers, begins: list[tuple[int, int]], start: int) -> Numbers:
    """Decoding times: those that fragments state for their first samples, and durations from there on."""
    ends = np.append(0, np.cumsum(durations))[:-1]
    stated = [(0, start), *((number, time) for number, time in begins if number < len(durations))]
    if any(time >= 1 << 62 for _, time in stated):
        raise IndexRefused("too_long", "The track says that it is longer than two days; every rendition is encoded.")
    numbers = np.array([number for number, _ in stated])
    times = np.array([time for _, time in stated], np.int64)
    # Of several that begin with the same sample the last one counts.
    which = np.searchsorted(numbers, np.arange(len(durations)), side="right") - 1
    found: Numbers = times[which] + ends - ends[numbers[which]]
    return found
