"""The sample tables of a track (ISO/IEC 14496-12, 8.6 and 8.7) as arrays: where each sample lies, and when it is decoded and shown.

A crafted table can claim billions of samples in a few bytes, or point thousands of them at one place: everything is counted
before anything is unfolded, and the samples of a track together are never larger than the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging.mp4boxes import IndexRefused, damaged, first, needed, unpack

MAX_SAMPLES = 10_000_000
MAX_DURATION_S = 48 * 3600

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Samples:
    """A track's samples in decoding order; times in its ticks.

    ``offsets`` and ``sizes`` in bytes of the file; ``decoded`` and ``shown`` on the media's clock, before any edit; ``durations``
    until the next is decoded; ``keys``: what the table claims (all of them where ``stated`` is false).
    """

    offsets: Numbers
    sizes: Numbers
    decoded: Numbers
    shown: Numbers
    durations: Numbers
    keys: Flags
    stated: bool

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, start: int, end: int) -> Samples:
        """The samples from ``start`` to ``end``."""
        cut = slice(start, end)
        return Samples(
            self.offsets[cut],
            self.sizes[cut],
            self.decoded[cut],
            self.shown[cut],
            self.durations[cut],
            self.keys[cut],
            self.stated,
        )


def read_samples(tables: memoryview, file_size: int, timescale: int) -> Samples:
    """Read a ``stbl``. Raises `IndexRefused`."""
    sizes = _sizes(tables, file_size)
    count = len(sizes)
    offsets = _offsets(tables, sizes)
    if int(offsets.min()) < 0 or int((offsets + sizes).max()) > file_size:
        raise IndexRefused("truncated", "The file ends before its last picture or sound; every rendition is encoded.")
    durations = _durations(tables, count)
    decoded = np.cumsum(durations)
    decoded -= durations
    if int(decoded[-1]) > MAX_DURATION_S * timescale:
        raise IndexRefused("too_long", "The track says that it is longer than two days; every rendition is encoded.")
    after = _composition(tables, count)
    shown = decoded if after is None else np.add(decoded, after, out=after)
    keys, stated = _keys(tables, count)
    return Samples(offsets, sizes, decoded, shown, durations, keys, stated)


def _sizes(tables: memoryview, file_size: int) -> Numbers:
    box = first(tables, b"stsz")
    if box is None:
        box = needed(tables, b"stz2")
        field, count = unpack(">I", box, 4)[0] & 0xFF, unpack(">I", box, 8)[0]
        if field not in {8, 16}:
            raise damaged("stz2")
        sizes = _numbers(box, 12, count, ">u1" if field == 8 else ">u2")
    else:
        same, count = unpack(">2I", box, 4)
        _countable(count)
        if same and same * count > file_size:
            raise _more_than_there_is()
        sizes = np.full(count, same, np.int64) if same else _numbers(box, 12, count, ">u4")
    if int(sizes.sum()) > file_size:
        raise _more_than_there_is()
    return sizes


def _more_than_there_is() -> IndexRefused:
    return IndexRefused(
        "table_mismatch", "The file's index claims more bytes than the file has; every rendition is encoded."
    )


def _countable(count: int) -> None:
    if count > MAX_SAMPLES:
        raise IndexRefused("too_many_samples", "The track has too many samples to be served as it is.")
    if count == 0:
        raise IndexRefused("table_short", "The track has no samples.")


def _numbers(box: memoryview, at: int, count: int, form: str) -> Numbers:
    _countable(count)
    if at + count * np.dtype(form).itemsize > len(box):
        raise damaged("a table is shorter than it says")
    return np.frombuffer(box, form, count, at).astype(np.int64)


def _pairs(box: memoryview, columns: int = 2) -> Numbers:
    """The rows of a table that begins with their number, unsigned; an empty array for none."""
    (count,) = unpack(">I", box, 4)
    if count == 0:
        return np.empty((0, columns), np.int64)
    return _numbers(box, 8, count * columns, ">u4").reshape(count, columns)


def _offsets(tables: memoryview, sizes: Numbers) -> Numbers:
    """Where each sample lies: chunks, the samples of each, and the sizes before it in its chunk."""
    box, form = first(tables, b"stco"), ">u4"
    if box is None:
        box, form = needed(tables, b"co64"), ">u8"
    (chunk_count,) = unpack(">I", box, 4)
    chunks = _numbers(box, 8, chunk_count, form)
    if int(chunks.min()) < 0 or int(chunks.max()) > 1 << 62:
        raise damaged("co64")
    groups = _pairs(needed(tables, b"stsc"), 3)
    starts, per_chunk = groups[:, 0] - 1, groups[:, 1]
    if len(groups) == 0 or int(starts[0]) != 0 or bool((np.diff(starts) <= 0).any()) or int(starts[-1]) >= chunk_count:
        raise damaged("stsc")
    if bool((groups[:, 2] != 1).any()):
        raise IndexRefused("stsd_entries", "The coding changes in the middle of the track; every rendition is encoded.")
    lengths = np.diff(np.append(starts, chunk_count))
    total = int(np.dot(lengths, per_chunk))
    if total < len(sizes):
        raise IndexRefused("table_short", "The file's index places fewer samples than it counts.")
    if total > 2 * len(sizes) + chunk_count:
        raise damaged("stsc")
    held = np.repeat(per_chunk, lengths)
    begins = np.minimum(np.cumsum(held) - held, len(sizes))
    before = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=before[1:])
    chunks -= before[begins]
    offsets: Numbers = np.repeat(chunks, held)[: len(sizes)]
    offsets += before[:-1]
    return offsets


def _unfolded(rows: Numbers, count: int) -> Numbers:
    """The second column, each as often as the first says, at most ``count`` of them."""
    ends = np.minimum(np.cumsum(rows[:, 0]), count)
    return np.repeat(rows[:, 1], np.diff(np.append(0, ends)))


def _durations(tables: memoryview, count: int) -> Numbers:
    rows = _pairs(needed(tables, b"stts"))
    if len(rows) == 0 or bool((rows[:, 1] >= 1 << 31).any()):
        raise damaged("stts")
    found = _unfolded(rows, count)
    if len(found) == 0:
        raise damaged("stts")
    if len(found) < count:
        found = np.append(found, np.full(count - len(found), rows[-1, 1]))
    if count > 1 and found[-1] == 0:
        found[-1] = found[-2]
    if bool((found <= 0).any()):
        raise IndexRefused("table_mismatch", "Some samples of the track last no time; every rendition is encoded.")
    return found


def _composition(tables: memoryview, count: int) -> Numbers | None:
    """Composition offsets, None without any; version 0 holds negative ones in practice too, so both are read as signed."""
    box = first(tables, b"ctts")
    if box is None:
        return None
    rows = _pairs(box)
    rows[rows[:, 1] >= 1 << 31, 1] -= 1 << 32
    found = _unfolded(rows, count)
    return found if len(found) == count else np.append(found, np.zeros(count - len(found), np.int64))


def _keys(tables: memoryview, count: int) -> tuple[Flags, bool]:
    box = first(tables, b"stss")
    if box is None:
        return np.ones(count, np.bool_), False
    keys = np.zeros(count, np.bool_)
    numbers = _pairs(box, 1)[:, 0] - 1
    keys[numbers[(numbers >= 0) & (numbers < count)]] = True
    return keys, True
