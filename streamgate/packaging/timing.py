"""Samples of files that say when each is shown, on a clock of their own, and not when it is decoded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.sampletables import Flags, Numbers, Samples

DRIFT_S = Fraction(2, 1000)
"""What the file's clock may be away from the grid of a track's sound."""

MAX_RESTARTS = 10_000
"""Times that the grid of a track's sound may begin anew."""


def pictures(offsets: Numbers, sizes: Numbers, shown: Numbers, keys: Flags, stated: float) -> Samples:
    """Pictures, decoded in the order of their times; ``stated``: ticks that one lasts, 0 where that is not said."""
    decoded = np.sort(shown)
    following = np.diff(decoded)
    last = round(stated) or (int(np.median(following)) if len(following) else 0) or 1
    lasting = np.append(following, last)
    if bool((lasting <= 0).any()) or bool((lasting >= 1 << 31).any()):
        raise IndexRefused("table_mismatch", "Some samples of the track last no time; every rendition is encoded.")
    return Samples(offsets, sizes, decoded, shown, lasting, keys, stated=True)


def sound(
    offsets: Numbers, sizes: Numbers, times: Numbers, stated: Flags, durations: Numbers, drift: int, hidden: int = 0
) -> tuple[Samples, int]:
    """Sound on the grid of its frames: the samples, decoded from 0 on, and the tick at which they begin.

    ``times`` count where ``stated`` (the first is); the grid begins anew from a time that is more than ``drift`` away from it.
    ``hidden``: ticks at the end that are not heard.
    """
    begins = _on_grid(times, stated, durations, drift)
    count = len(begins)
    while count > 1 and hidden >= durations[count - 1]:
        hidden -= int(durations[count - 1])
        count -= 1
    lasting = np.append(np.diff(begins[:count]), max(1, int(durations[count - 1]) - hidden))
    start = int(begins[0])
    decoded = begins[:count] - start
    return Samples(
        offsets[:count], sizes[:count], decoded, decoded, lasting, np.ones(count, np.bool_), stated=True
    ), start


def _on_grid(times: Numbers, stated: Flags, durations: Numbers, drift: int) -> Numbers:
    """When frames begin: one behind the other, and anew from the stated time wherever that is more than ``drift`` away."""
    ends = np.cumsum(durations) - durations
    begins = np.empty_like(times)
    start, span = 0, 64
    offset = int(times[0])
    for _ in range(MAX_RESTARTS):
        while start < len(times):
            part = slice(start, start + span)
            laid = ends[part] + offset
            away = np.flatnonzero(stated[part] & (np.abs(times[part] - laid) > drift))
            if len(away):
                begins[part][: away[0]] = laid[: away[0]]
                start += int(away[0])
                break
            begins[part] = laid
            start, span = start + span, span << 1
        else:
            steps = np.arange(len(begins))
            found: Numbers = np.maximum.accumulate(begins - steps) + steps
            return found
        offset, span = int(times[start] - ends[start]), 64
    raise IndexRefused("table_mismatch", "The times of the sound jump to and fro; every rendition is encoded.")
