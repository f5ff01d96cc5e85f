"""Indexes that a stranger made: a named refusal or a whole film, in little time and memory, whatever they claim."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamgate.packaging.sampleindex import IndexRefused, index_mp4
from streamgate.packaging.segments import SegmentLayout
from tests.support.mp4_edit import box, changed
from tests.support.passed import Bytes, passed
from tools import fuzz_index

FEW_S = 5.0
FEW_BYTES = 64 << 20


@pytest.fixture(scope="session")
def mutated(films: Path) -> list[tuple[str, bytes]]:
    folder = films / "mutated"
    folder.mkdir(exist_ok=True)
    return fuzz_index.seeds(folder)


def test_mutations_end_in_a_refusal_or_a_whole_film(mutated: list[tuple[str, bytes]]) -> None:
    ends, wrong, _ = fuzz_index.run(mutated, 550, seed=20)
    assert wrong == []
    assert ends["film"] > 50, "mutations that never leave a film show nothing"
    assert len(ends) > 4


def test_every_film_that_is_mutated_is_one_before(mutated: list[tuple[str, bytes]]) -> None:
    ends = {name: fuzz_index.examine_film(name, data, data) for name, data in mutated}
    assert ends == dict.fromkeys(fuzz_index.SEEDS, "film")


def test_a_film_that_ends_anywhere(mutated: list[tuple[str, bytes]]) -> None:
    for name, data in mutated:
        if name in {"first.mp4", "dash.mp4"}:
            ends = {fuzz_index.examine(data[:end]) for end in (*range(0, len(data), 211), len(data))}
            assert (
                {"film", "no_moov"}
                <= ends
                <= {"film", "no_moov", "box_size", "truncated", "table_short", "table_mismatch"}
            ), name


names = st.sampled_from(
    b"moov trak mdia minf stbl stsd stts stsz stsc stco co64 ctts stss mvhd tkhd mdhd hdlr avc1 avcC mvex trex moof traf "
    b"tfhd tfdt trun mdat edts elst esds mp4a dinf dref".split()
)
trees = st.recursive(
    st.builds(box, names, st.binary(max_size=120)),
    lambda inner: st.builds(lambda kind, parts: box(kind, b"".join(parts)), names, st.lists(inner, max_size=5)),
    max_leaves=40,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, max_size=4).map(b"".join) | st.binary(max_size=300))
@example(box(b"moov", b""))
@example(b"\0\0\0\0moov")
@example(box(b"moov", box(b"mvhd", bytes(100))) + box(b"moof", b""))
def test_no_boxes_at_all_do_harm(data: bytes) -> None:
    fuzz_index.examine(data)


def _silent(mutated: list[tuple[str, bytes]]) -> bytes:
    return dict(mutated)["last.mp4"]


def bounded(data: bytes) -> str:
    """How indexing ends, within the memory and the time that it may take."""
    began = time.process_time()
    tracemalloc.start()
    try:
        return fuzz_index.examine(data)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < FEW_BYTES + 40 * len(data)
        assert time.process_time() - began < FEW_S


HUGE = 0xFFFFFFFF
BOMBS: dict[str, tuple[bytes, bytes]] = {
    "billions of samples of one size": (b"stsz", struct.pack(">III", 0, 1, HUGE)),
    "ten million samples of no size": (b"stsz", struct.pack(">III", 0, 0, 10_000_000)),
    "sizes that overflow": (b"stsz", struct.pack(">III200I", 0, 0, 200, *([HUGE] * 200))),
    "a time for each of billions": (b"stts", struct.pack(">IIII", 0, 1, HUGE, 512)),
    "times without end": (b"stts", struct.pack(">IIII", 0, 1, HUGE, 0x7FFFFFFF)),
    "billions of rows": (b"stts", struct.pack(">IIII", 0, HUGE, 1, 512)),
    "no time": (b"stts", struct.pack(">IIII", 0, 1, 200, 0)),
    "chunks of billions": (b"stsc", struct.pack(">IIIII", 0, 1, 1, HUGE, 1)),
    "billions of chunks": (b"stco", struct.pack(">II", 0, HUGE)),
    "chunks far beyond": (b"co64", struct.pack(">IIQ", 0, 1, (1 << 63) - 1)),
    "key frames far beyond": (b"stss", struct.pack(">III", 0, 1, HUGE)),
    "offsets without end": (b"ctts", struct.pack(">IIII", 0, 1, HUGE, 0x7FFFFFFF)),
    "edits without end": (b"elst", struct.pack(">II", 0, HUGE)),
    "an edit far beyond": (b"elst", struct.pack(">IIIIHH", 0, 1, 1000, 0x7FFFFFFF, 1, 0)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_tables_that_claim_more_than_there_is(mutated: list[tuple[str, bytes]], name: str) -> None:
    kind, payload = BOMBS[name]
    bounded(changed(_silent(mutated), b"stco" if kind == b"co64" else kind, lambda _: box(kind, payload)))


def test_thousands_of_samples_in_one_place(mutated: list[tuple[str, bytes]]) -> None:
    """Chunks that all point at the largest piece of the film: together more bytes than it has."""
    data = _silent(mutated)
    size = 2000

    def crafted(which: bytes) -> bytes:
        made = changed(data, b"stsz", lambda _: box(b"stsz", struct.pack(">III", 0, 5000, size)))
        made = changed(made, b"stsc", lambda _: box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)))
        return changed(made, b"stco", lambda _: box(which, struct.pack(f">II{size}I", 0, size, *([48] * size))))

    assert len(data) < 5000 * size
    with pytest.raises(IndexRefused) as refused:
        passed(crafted(b"stco"))
    assert refused.value.code == "table_mismatch"


def test_boxes_in_boxes_without_end(mutated: list[tuple[str, bytes]]) -> None:
    deep = b""
    for _ in range(20_000):
        deep = box(b"trak", deep)
    assert bounded(box(b"moov", box(b"mvhd", bytes(100)) + deep)) != "film"
    wide = box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", b"") * 100_000)
    assert bounded(wide) == "box_size"
    assert bounded(box(b"free", b"") * 300_000) == "box_size"


def test_fragments_that_claim_more_than_there_is(mutated: list[tuple[str, bytes]]) -> None:
    data = dict(mutated)["fragments.mp4"]
    for payload in (
        struct.pack(">II", 0, HUGE),
        struct.pack(">II", 0, 9_999_999),
        struct.pack(">IIi", 1, 1000, -0x80000000),
        struct.pack(">III", 0x200, 1, HUGE),
        struct.pack(">III", 0x100, 1, HUGE),
        struct.pack(">III", 0x100, 1, 0),
    ):
        bounded(changed(data, b"trun", lambda _, run=payload: box(b"trun", run)))
    for time_of in (HUGE, (1 << 64) - 1, 1 << 62):
        stated = struct.pack(">IQ", 1 << 24, time_of)
        bounded(changed(data, b"tfdt", lambda _, stated=stated: box(b"tfdt", stated)))


def test_a_source_that_gives_less_than_it_says(mutated: list[tuple[str, bytes]]) -> None:
    """A reader that comes back short is a damaged film, not an error of another kind."""
    data = _silent(mutated)
    whole = Bytes(data)
    with pytest.raises(IndexRefused):
        index_mp4(lambda offset, length: whole(offset, length)[:7], len(data))


def test_what_lies_between_the_ranges_of_a_large_segment_is_not_read() -> None:
    large = 30 << 20
    ranges = ((0, large), (4 * large, large))
    assert SegmentLayout(b"", 0, (0, 4 * large), (large, 5 * large), 5 * large, 2 * large).span() == ranges
    assert SegmentLayout(b"", 0, (0, large + 1000), (large, 2 * large + 1000), 2 * large + 1000, 2 * large).span() == (
        (0, 2 * large + 1000),
    )
