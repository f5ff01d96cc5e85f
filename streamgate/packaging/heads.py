"""Heads and byte ranges of segments, from arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging import cmaf

Numbers = NDArray[np.int64]


def array_head(
    sequence: int, decode_time: int, durations: Numbers, sizes: Numbers, keys: NDArray[np.bool_], offsets: Numbers
) -> bytes:
    """`cmaf.media_head` of samples in decoding order; times in ticks, composition offsets not negative."""
    alike = bool(keys.all()) and not offsets.any() and bool((durations == durations[0]).all())
    if alike:
        rows = sizes.astype(">u4").tobytes()
    else:
        table = np.empty((len(sizes), 4), ">u4")
        table[:, 0], table[:, 1], table[:, 3] = durations, sizes, offsets
        table[:, 2] = np.where(keys, cmaf.SYNC_FLAGS, cmaf.DELTA_FLAGS)
        rows = table.tobytes()
    body = int(sizes.sum())
    return cmaf.media_head(sequence, decode_time, len(sizes), rows, body, alike=int(durations[0]) if alike else None)


def ranges_of(offsets: Numbers, sizes: Numbers, starts: list[int]) -> tuple[bytes, Numbers, Numbers]:
    """The byte ranges of samples in decoding order, joined where they touch and never over the beginning of a segment.

    Packed as `segments.RANGE`; and for each segment its first range and how many it has.
    """
    begins = np.ones(len(sizes), np.bool_)
    begins[1:] = offsets[1:] != offsets[:-1] + sizes[:-1]
    begins[starts] = True
    at = np.flatnonzero(begins)
    table = np.empty(len(at), [("offset", "<u8"), ("length", "<u4")])
    table["offset"] = offsets[at]
    table["length"] = np.add.reduceat(sizes, at)
    firsts = np.searchsorted(at, np.array(starts))
    return table.tobytes(), firsts, np.diff(np.append(firsts, len(at)))
