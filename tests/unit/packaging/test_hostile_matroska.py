"""Matroska that a stranger made to harm: a named refusal or a whole film, in little time and memory, whatever it claims."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamgate.packaging.matroskaindex import index_matroska
from tests.support import matroska_write as mkv
from tests.support.films import by_ffmpeg, moving
from tests.support.matroska_write import element, number
from tools import fuzz_index

examine = partial(fuzz_index.examine, index_of=index_matroska)
FEW_S = 10.0
FEW_BYTES = 64 << 20


@pytest.fixture(scope="session")
def track(films: Path) -> mkv.Track:
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-threads", "1")
    (found,) = mkv.read(by_ffmpeg(films, "small.mp4", *moving(2, "64x48"), *coded))
    return found


names = st.sampled_from(
    [mkv.EBML, mkv.SEGMENT, mkv.INFO, mkv.TRACKS, mkv.CLUSTER, mkv.ENTRY, mkv.VOID, mkv.SIMPLE, mkv.GROUP, mkv.BLOCK, 0xE7,
     0xD7, 0x83, 0x86, 0x63A2, 0xE0, 0xE1, 0x2AD7B1, 0x6D80, 0x7670, 0x55B0]
)  # fmt: skip
trees = st.recursive(
    st.builds(element, names, st.binary(max_size=60)),
    lambda inner: st.builds(
        lambda kind, parts, unknown: element(kind, *parts, unknown=unknown),
        names,
        st.lists(inner, max_size=6),
        st.booleans(),
    ),
    max_leaves=40,
)
films_of_nothing = st.lists(trees, max_size=4).map(lambda parts: mkv.header() + element(mkv.SEGMENT, *parts))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(films_of_nothing | st.lists(trees, max_size=3).map(b"".join) | st.binary(max_size=200))
@example(mkv.header())
@example(mkv.header() + mkv.name(mkv.SEGMENT))
@example(b"\0" * 40)
def test_no_elements_at_all_do_harm(data: bytes) -> None:
    examine(data)


def test_a_film_that_ends_anywhere(track: mkv.Track) -> None:
    for way in (mkv.Way(), mkv.Way(unknown=True, groups=True)):
        data = mkv.write([track], way)
        ends = {examine(data[:end]) for end in (*range(0, len(data), 61), len(data))}
        assert {"film", "no_tracks"} <= ends <= {"film", "no_tracks", "table_short"}


def bounded(data: bytes) -> str:
    """How indexing ends, within the memory and the time that it may take."""
    began = time.process_time()
    tracemalloc.start()
    try:
        return examine(data)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < FEW_BYTES + 40 * len(data)
        assert time.process_time() - began < FEW_S


def _after(track: mkv.Track, *parts: bytes) -> bytes:
    """A film of one whole cluster and then something else."""
    whole = mkv.write([track], mkv.Way(unknown=True))
    return whole + b"".join(parts)


def _block(time: int, data: bytes = b"frame", flags: int = 0x80) -> bytes:
    return element(mkv.SIMPLE, b"\x81", time.to_bytes(2, "big", signed=True), bytes([flags]), data)


BOMBS: dict[str, tuple[str, Callable[[mkv.Track], bytes]]] = {
    "thousands of clusters": ("film", lambda t: _after(t, element(mkv.CLUSTER) * 20_000)),
    "a size beyond all files": ("film", lambda t: _after(t, mkv.name(mkv.TAGS), b"\x01" + b"\xfe" * 7)),
    "a size of the last bit": ("box_size", lambda t: _after(t, mkv.name(mkv.CLUSTER), mkv.length((1 << 56) - 2), b"\0")),
    "a clock at its end": ("too_long", lambda t: _after(t, element(mkv.CLUSTER, number(0xE7, (1 << 64) - 1), _block(0)))),
    "a time of nine bytes": ("box_size", lambda t: _after(t, element(mkv.CLUSTER, element(0xE7, bytes(9))))),
    "blocks before their time": ("box_size", lambda t: _after(t, element(mkv.CLUSTER, _block(0)))),
    "a block of nothing": ("box_size", lambda t: _after(t, element(mkv.CLUSTER, number(0xE7, 9000), element(mkv.SIMPLE, b"\x81")))),
    "a lace of more than there is": (
        "box_size",
        lambda t: _after(t, element(mkv.CLUSTER, number(0xE7, 9000), _block(0, b"\xff\xff\xff", 0x82))),
    ),
    "a group in a group": (
        "film",
        lambda t: _after(t, element(mkv.CLUSTER, number(0xE7, 9000), element(mkv.GROUP, element(mkv.GROUP, _block(0))))),
    ),
    "time that stands still": (
        "table_mismatch",
        lambda t: _after(t, element(mkv.CLUSTER, number(0xE7, 9000), _block(0) * 20_000)),
    ),
    "no clock": ("box_size", lambda t: mkv.write([t], mkv.Way(info=number(0x2AD7B1, 0)))),
    "a clock of days": ("box_size", lambda t: mkv.write([t], mkv.Way(info=number(0x2AD7B1, 1 << 60)))),
    "a hundred tracks": (
        "box_size",
        lambda t: mkv.header()
        + element(mkv.SEGMENT, element(mkv.TRACKS, *(mkv.replace(t, number=n, frames=()).entry() for n in range(1, 101)))),
    ),
    "tracks without end": (
        "box_size",
        lambda t: mkv.header() + element(mkv.SEGMENT, element(mkv.TRACKS, element(mkv.ENTRY) * 5000)),
    ),
    "tracks of gigabytes": (
        "box_size",
        lambda t: mkv.header() + mkv.name(mkv.SEGMENT) + mkv.length(1 << 40) + mkv.name(mkv.TRACKS) + mkv.length(1 << 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_claims_more_than_there_is(track: mkv.Track, name: str) -> None:
    end, make = BOMBS[name]
    assert bounded(make(track)) == end


def test_paddings_without_end(track: mkv.Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgate.packaging.matroska.MAX_OTHERS", 5000)
    for holder in (mkv.CLUSTER, mkv.TAGS):
        few = element(mkv.CLUSTER, element(mkv.VOID) * 4000)
        many = element(mkv.CLUSTER, element(mkv.VOID) * 6000) if holder == mkv.CLUSTER else element(mkv.TAGS) * 6000
        assert bounded(_after(track, few)) == "film"
        assert bounded(_after(track, many)) == "box_size"


def test_a_source_that_gives_less_than_it_says(track: mkv.Track) -> None:
    data = mkv.write([track])
    with pytest.raises(fuzz_index.IndexRefused) as refused:
        index_matroska(lambda offset, length: data[offset : offset + length - 1], len(data))
    assert refused.value.code == "truncated"
