"""Films whose index tells of their pictures: planned and encoded as from the whole file, without reading it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from av.video.frame import VideoFrame
from msgspec.structs import replace

from streamgate.media import plan as planning
from streamgate.media.cuts import runs
from streamgate.media.decoding import Pictures
from streamgate.media.excerpt import excerpted, segments_for
from streamgate.media.model import LadderSettings, Limits, MediaPlan
from streamgate.media.opening import Source
from streamgate.media.plan import make_plan
from streamgate.media.recipe import unpack
from streamgate.media.sandbox import Sandbox
from streamgate.media.video import scheduled
from streamgate.packaging.segments import SegmentLayout, StoredIndex, assemble
from tests.support.encoding import FileSource
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.passed import Bytes

LADDER = LadderSettings(rungs=(120,), preset="ultrafast")
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60", "-pix_fmt", "yuv420p", "-c:a", "aac")
KINDS = {
    "moov last": (),
    "fragments": ("-movflags", "+frag_keyframe+empty_moov"),
    "late": ("-output_ts_offset", "1.5", "-movflags", "+faststart"),
}


@pytest.fixture(params=KINDS)
def film(request: pytest.FixtureRequest, films: Path) -> Path:
    name = f"pieces-{request.param.replace(' ', '-')}.mp4"
    return films / name if (films / name).exists() else _made(films, name, KINDS[request.param])


def _made(films: Path, name: str, flags: tuple[str, ...]) -> Path:
    return by_ffmpeg(films, name, *moving(22), *tone(22), *CODED, *flags)


class NobodyListens:
    """The server's end, which takes the index that is told ahead and asks nothing."""

    def sendall(self, data: bytes) -> None:
        assert data


def opened(path: Path) -> Source:
    return Source(path.stat().st_size, str(path), cast("socket.socket", NobodyListens()))


def excerpt(plan: MediaPlan, size: int, chunks: range) -> list[SegmentLayout]:
    wanted = segments_for(plan, chunks)
    assert wanted is not None
    track, numbers = wanted
    return [StoredIndex.load(plan.index, size).segment(track, number) for number in numbers]


def test_a_film_is_planned_by_its_index_as_by_its_packets(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(film)
    by_index = make_plan(source, LADDER, Limits())
    monkeypatch.setattr(planning, "tabled", lambda *_: None)
    by_packets = make_plan(source, LADDER, Limits())
    assert by_index.index
    assert not by_packets.index
    # Sound ends where the container says it does, or where its last packet does.
    for ours, theirs in zip(by_index.renditions, by_packets.renditions, strict=True):
        assert ours.boundaries[:-1] == theirs.boundaries[:-1], ours.name
        assert ours.boundaries[-1] - theirs.boundaries[-1] == pytest.approx(0, abs=2 * ours.timescale / 43), ours.name
        assert replace(ours, boundaries=()) == replace(theirs, boundaries=())


@pytest.mark.parametrize("passthrough", [True, False])
def test_a_piece_of_a_film_shows_the_same_pictures_as_the_film(film: Path, passthrough: bool) -> None:
    source, data = opened(film), film.read_bytes()
    plan = make_plan(source, replace(LADDER, passthrough=passthrough), Limits())
    recipe = unpack(plan.recipe)
    assert recipe.video is not None
    assert recipe.video.cut is not None
    rung = next(rendition for rendition in plan.renditions if rendition.name == "120p")
    for first, end in plan.runs:
        edges = rung.boundaries[first : end + 1]
        pieces = [assemble(layout, Bytes(data)) for layout in excerpt(plan, source.size, range(first, end))]
        small = source.excerpt(recipe.video.cut.init + b"".join(pieces))
        shown = Pictures(source, excerpted(recipe)).all_of(small, from_zero=first == 0)
        assert drawn(scheduled(shown, edges)) == drawn(scheduled(Pictures(source, recipe).since(edges[0]), edges))


def drawn(pictures: Iterator[tuple[int, VideoFrame, bool]]) -> list[tuple[int, bytes, bool]]:
    return [(tick, picture.to_ndarray().tobytes(), key) for tick, picture, key in pictures]


async def test_a_piece_of_a_film_far_away_is_fetched_at_once(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    source = FileSource(_made(films, "pieces-far.mp4", ()), by_path=False)
    plan = await sandbox.plan(source, ladder=replace(LADDER, passthrough=True), limits=Limits())
    for first, end in plan.runs:
        folder = tmp_path / f"{first}"
        folder.mkdir()
        source.ranges = 0
        pieces = excerpt(plan, source.size, range(first, end))
        done = await sandbox.encode(
            source, plan, chunks=range(first, end), renditions=("120p",), folder=folder, timeout_s=60, excerpt=pieces
        )
        assert [segment.number for segment in done.segments] == list(range(first, end))
        assert source.ranges == len(pieces)


async def test_a_piece_holds_no_more_than_its_chunk_needs(sandbox: Sandbox, films: Path) -> None:
    path = _made(films, "pieces-size.mp4", ())
    plan = await sandbox.plan(FileSource(path), ladder=LADDER, limits=Limits())
    found = [segments_for(plan, range(*run)) for run in plan.runs]
    assert [numbers for _, numbers in filter(None, found)] == [range(1), range(4), range(3, 6)]


def test_a_run_of_several_segments_is_not_long() -> None:
    edges = [0.0, 4, 8, 12, 20, 28, 36, 40, 44, 48, 60, 64]
    found = runs(11, 3, edges=edges, most_s=13)
    assert found == ((0, 1), (1, 3), (3, 4), (4, 5), (5, 7), (7, 9), (9, 11))
    usual = [4.0 * n for n in range(30)]
    assert runs(29, 3, edges=usual, most_s=13) == runs(29, 3)


async def test_where_a_piece_shows_nothing_the_source_is_opened(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    source = FileSource(_made(films, "pieces-empty.mp4", ()))
    plan = await sandbox.plan(source, ladder=replace(LADDER, passthrough=True), limits=Limits())
    (folder := tmp_path / "made").mkdir()
    nothing = [SegmentLayout(b"", 0, (0,), (8,), 8, 8)]
    done = await sandbox.encode(
        source, plan, chunks=range(*plan.runs[1]), renditions=("120p",), folder=folder, timeout_s=60, excerpt=nothing
    )
    first, end = plan.runs[1]
    assert [segment.number for segment in done.segments] == list(range(first, end))
