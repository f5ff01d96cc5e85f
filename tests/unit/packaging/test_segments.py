"""Segments out of a stored index: whatever way the ranges of the source are read and joined, it is the naive one that counts."""

from __future__ import annotations

import random
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamgate.packaging.cmaf import ALIKE
from streamgate.packaging.segments import (
    MOST_BETWEEN,
    ROW,
    SegmentLayout,
    StoredIndex,
    StoredTrack,
    assemble,
    stored,
)

SOURCE = random.Random(5).randbytes(4 << 20)
BASE = 1000

Ranges = list[tuple[int, int]]


def source(offset: int, length: int) -> bytes:
    return SOURCE[offset : offset + length]


def index_of(ranges: Ranges, *, base: int = BASE, size: int = len(SOURCE), wide: bool = False) -> StoredIndex:
    """An index of one segment, each range a sample but for the last, which is two."""
    *whole, last = [length for _, length in ranges]
    sizes = [*whole, last - 1, 1]
    pairs = "<" + ("QI" if wide else "II") * len(ranges)
    record = struct.pack(f">{len(sizes)}I", *sizes) + struct.pack(pairs, *(n for one in ranges for n in one))
    row = ROW.pack(0, 7, base, len(record), ALIKE, 1, len(sizes), len(ranges), sum(sizes))
    return StoredIndex.load(stored(size, [StoredTrack(0, row, [record], wide)]), size)


@st.composite
def some_ranges(draw: st.DrawFn) -> Ranges:
    """Ranges in any order, near, far, touching and overlapping."""
    found: Ranges = []
    at = 0
    for _ in range(draw(st.integers(1, 24))):
        length = draw(st.integers(2, 3000))
        found.append((at, length))
        at = max(0, at + length + draw(st.sampled_from((0, 0, 1, 300, 17_000, 90_000, -500))))
    return draw(st.permutations(found)) if draw(st.booleans()) else found


@settings(deadline=None)
@given(some_ranges(), st.booleans())
def test_a_segment_is_its_head_and_its_ranges_however_they_are_read(ranges: Ranges, wide: bool) -> None:
    layout = index_of(ranges, wide=wide).segment(0, 0)
    assert layout.ranges == tuple((BASE + start, length) for start, length in ranges)
    naive = assemble(layout, source)
    assert len(naive) == layout.length
    pieces = layout.span()
    assert list(pieces) == sorted(pieces)
    assert layout.joined([(offset, source(offset, length)) for offset, length in pieces]) == naive
    assert layout.joined([(layout.base, source(*layout.covering))]) == naive
    assert layout.joined([(0, memoryview(SOURCE))]) == naive


@settings(deadline=None)
@given(some_ranges(), st.data())
def test_bytes_that_are_missing_are_noticed(ranges: Ranges, draws: st.DataObject) -> None:
    layout = index_of(ranges).segment(0, 0)
    pieces = [(offset, source(offset, length)) for offset, length in layout.span()]
    with pytest.raises(ValueError, match="not complete"):
        layout.joined([*pieces[:-1], (pieces[-1][0], pieces[-1][1][:-1])])
    spoilt = draws.draw(st.integers(0, len(pieces) - 1))
    offset, data = pieces[spoilt]
    pieces[spoilt] = (offset + 1, data[1:])
    with pytest.raises(ValueError, match="not complete"):
        layout.joined(pieces)


@settings(deadline=None)
@given(some_ranges(), st.data())
def test_an_index_that_disagrees_with_itself_is_damaged(ranges: Ranges, draws: st.DataObject) -> None:
    """Lengths that are not those of the samples, and ranges beyond the source."""
    index = index_of(ranges)
    at, length = index.record(0, 0)
    record = bytearray(index._front[at : at + length])  # all of the index was given
    told = 4 * (len(ranges) + 1)
    one = draws.draw(st.integers(0, len(ranges) - 1))
    place = draws.draw(st.sampled_from((4 * one, told + 8 * one + 4)))
    changed = record[:]
    changed[place + draws.draw(st.integers(0, 3))] ^= draws.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="damaged"):
        index.layout(0, 0, bytes(changed))
    changed = record[:]
    struct.pack_into("<I", changed, told + 8 * one, len(SOURCE) - BASE - ranges[one][1] + 1)
    with pytest.raises(ValueError, match="beyond the source"):
        index.layout(0, 0, bytes(changed))


def test_a_crafted_film_neither_makes_a_request_read_for_nothing_nor_holds_up_the_others() -> None:
    count, gap = 20_000, 60_000
    starts = tuple(range(0, count * gap, gap))
    layout = SegmentLayout(b"", 0, starts, tuple(start + 2 for start in starts), starts[-1] + 2, 2 * count)
    pieces = layout.span()
    assert sum(length for _, length in pieces) <= layout.length + MOST_BETWEEN
    began = time.process_time()
    assert layout.joined([(offset, bytes(length)) for offset, length in pieces]) == bytes(layout.length)
    assert time.process_time() - began < 2
