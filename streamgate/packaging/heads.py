"""What a stored index holds of a track's segments, from arrays of its samples: `segments.ROW` and records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging import cmaf
from streamgate.packaging.segments import StoredTrack

Numbers = NDArray[np.int64]

_ROW = [(name, "<u8") for name in ("record", "decode_time", "base")] + [
    (name, "<u4") for name in ("length", "form", "duration", "samples", "ranges", "body")
]
_FAR = 1 << 32


def forms(durations: Numbers, keys: NDArray[np.bool_], offsets: Numbers, starts: Numbers) -> Numbers:
    """How the samples of each segment are best told: `cmaf.ALIKE`, `cmaf.STEADY` or `cmaf.ROWS`."""
    counts = np.diff(np.append(starts, len(durations)))
    one = np.minimum.reduceat(durations, starts) == np.maximum.reduceat(durations, starts)
    key_counts = np.add.reduceat(keys, starts, dtype=np.int64)
    alike = one & (key_counts == counts) & (np.maximum.reduceat(offsets, starts) == 0)
    steady = one & (key_counts == 1) & keys[starts]
    made: Numbers = np.where(alike, cmaf.ALIKE, np.where(steady, cmaf.STEADY, cmaf.ROWS))
    return made


def stored_track(
    number: int,
    starts: Numbers,
    decoded: Numbers,
    durations: Numbers,
    sizes: Numbers,
    keys: NDArray[np.bool_],
    offsets: Numbers,
    places: Numbers,
) -> tuple[StoredTrack, Numbers]:
    """A track's part of the index, and how many bytes its segments have, heads and all.

    ``starts``: the sample with which each segment begins. Of each sample, in decoding order: when it is decoded, its duration,
    size, whether it is a key frame, its composition offset (not negative), and its place in the source.
    """
    counts = np.diff(np.append(starts, len(sizes)))
    form = forms(durations, keys, offsets, starts)
    range_at, bases, ranges, wide = _ranges(places, sizes, starts)
    range_counts = np.diff(np.append(np.searchsorted(range_at, starts), len(range_at)))
    singles = range_counts == counts
    records, lengths = _records(
        _told(form, durations, sizes, keys, offsets), form, starts, counts, ranges, range_counts, singles
    )
    table = np.zeros(len(starts), _ROW)
    table["record"][1:] = np.cumsum(lengths)[:-1]
    table["decode_time"], table["base"] = decoded[starts], bases
    table["length"], table["form"], table["samples"], table["ranges"] = lengths, form, counts, range_counts
    table["duration"] = np.where(form == cmaf.ROWS, 0, durations[starts])
    table["body"] = np.add.reduceat(sizes, starts)
    heads = np.array([len(cmaf.media_head(1, 0, 0, b"", 0, form=n)) for n in range(len(cmaf.ROW_BYTES))])
    whole = heads[form] + counts * np.array(cmaf.ROW_BYTES)[form] + table["body"]
    return StoredTrack(number, table.tobytes(), records, wide), whole


def _told(
    form: Numbers, durations: Numbers, sizes: Numbers, keys: NDArray[np.bool_], offsets: Numbers
) -> list[memoryview]:
    """What would be told of all samples in each form; nothing for those that no segment has."""
    made = [memoryview(b"")] * len(cmaf.ROW_BYTES)
    if (form == cmaf.ROWS).any():
        table = np.empty((len(sizes), 4), ">u4")
        table[:, 0], table[:, 1], table[:, 3] = durations, sizes, offsets
        table[:, 2] = np.where(keys, cmaf.SYNC_FLAGS, cmaf.DELTA_FLAGS)
        made[cmaf.ROWS] = _bytes(table)
    if (form == cmaf.ALIKE).any():
        made[cmaf.ALIKE] = _bytes(sizes.astype(">u4"))
    if (form == cmaf.STEADY).any():
        table = np.empty((len(sizes), 2), ">u4")
        table[:, 0], table[:, 1] = sizes, offsets
        made[cmaf.STEADY] = _bytes(table)
    return made


def _bytes(table: NDArray[Any]) -> memoryview:
    """The bytes of an array, where they lie: an index is long, and each copy of it costs as much as making it."""
    return np.ascontiguousarray(table).reshape(-1).view(np.uint8).data


def _ranges(places: Numbers, sizes: Numbers, starts: Numbers) -> tuple[Numbers, Numbers, NDArray[np.void], bool]:
    """Byte ranges of samples, joined where they touch and never over the beginning of a segment: the sample each begins with; for
    each segment the lowest place; for each range how far after that it begins and how long it is; and whether that is far."""
    begins = np.ones(len(sizes), np.bool_)
    begins[1:] = places[1:] != places[:-1] + sizes[:-1]
    begins[starts] = True
    at = np.flatnonzero(begins)
    first = np.searchsorted(at, starts)
    after = places[at]
    bases = np.minimum.reduceat(after, first)
    after -= np.repeat(bases, np.diff(np.append(first, len(at))))
    wide = bool(after.max() >= _FAR)
    table = np.empty(len(at), [("offset", "<u8" if wide else "<u4"), ("length", "<u4")])
    table["offset"], table["length"] = after, np.add.reduceat(sizes, at)
    return at, bases, table, wide


def _records(
    told: list[memoryview],
    form: Numbers,
    starts: Numbers,
    counts: Numbers,
    ranges: NDArray[np.void],
    range_counts: Numbers,
    singles: NDArray[np.bool_],
) -> tuple[list[memoryview], Numbers]:
    """The records one after the other, in pieces, and the length of each."""
    offsets, whole = _bytes(ranges["offset"]) if singles.any() else memoryview(b""), _bytes(ranges)
    short, long = ranges.dtype["offset"].itemsize, ranges.itemsize
    width = np.array(cmaf.ROW_BYTES)[form]
    lengths = counts * width + range_counts * np.where(singles, short, long)
    pieces: list[memoryview] = []
    at = 0
    columns = (form, starts * width, counts * width, range_counts, singles)
    for kind, begin, length, many, single in zip(*(column.tolist() for column in columns), strict=True):
        pieces.append(told[kind][begin : begin + length])
        source, each = (offsets, short) if single else (whole, long)
        pieces.append(source[at * each : (at + many) * each])
        at += many
    return pieces, lengths
