"""Matroska as it may be written (laces, groups, sizes left out, other clocks): the film that libav reads, or a named refusal."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.frame import VideoFrame
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st

from streamgate.packaging.lacing import laced
from streamgate.packaging.matroska import Scan
from streamgate.packaging.matroskaindex import index_matroska
from streamgate.packaging.mp4boxes import IndexRefused
from tests.support import matroska_write as mkv
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.matroska_write import Track, Way, write
from tests.support.passed import Bytes, check, passed

SECONDS = 6
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "25", "-threads", "1")
SOUND = ("-c:a", "aac", "-b:a", "64k")


@pytest.fixture(scope="module")
def tracks(films: Path) -> list[Track]:
    return mkv.read(by_ffmpeg(films, "written.mp4", *moving(SECONDS, "160x90"), *tone(SECONDS), *CODED, *SOUND))


def sound(tracks: list[Track], **changes: Any) -> list[Track]:
    return [tracks[0], replace(tracks[1], **changes)]


WAYS: dict[str, Way] = {
    "simple blocks": Way(),
    "groups": Way(groups=True),
    "laces of Xiph": Way(lace=(mkv.XIPH, 5)),
    "laces of EBML": Way(lace=(mkv.EBML_LACE, 8)),
    "groups of laces": Way(groups=True, lace=(mkv.EBML_LACE, 3)),
    "sizes left out": Way(unknown=True),
    "a tenth of a millisecond": Way(scale=100_000, cluster_ms=500),
    "a clock of no whole number": Way(scale=333_333),
    "clusters timed by their middle": Way(middle=True),
    "what no reader needs": Way(fillers=True),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_write_it_is_the_same_film(tracks: list[Track], name: str) -> None:
    data = write(tracks, WAYS[name])
    given = passed(data)
    assert given.index.refused == ()
    assert not given.index.cut_off
    check(given, data)
    assert given.index.video is not None
    assert given.index.video.frames == SECONDS * 25


def test_numbers_of_tracks_that_need_two_bytes(tracks: list[Track]) -> None:
    data = write([replace(tracks[0], number=200), replace(tracks[1], number=5000)])
    given = passed(data)
    assert len(given.index.audio) == 1
    check(given, data)


def test_what_the_encoder_put_before_the_sound_is_not_heard(tracks: list[Track]) -> None:
    """CodecDelay: the film begins with the first sample that is to be heard, wherever the file's clock begins."""
    for start in (0, 5000):
        frames = tuple(replace(frame, time=frame.time + start + 21.333) for frame in tracks[1].frames)
        (late,) = sound(tracks, more=mkv.number(0x56AA, 21_333_333), frames=frames)[1:]
        data = write([late])
        given = passed(data)
        assert given.index.origin == Fraction(start, 1000)
        assert given.index.audio[0].frames == len(frames) - 1
        assert int(given.index.audio[0].times[0]) == 0
        check(given, data)


def test_what_is_to_be_thrown_away_at_the_end_is_not_served(tracks: list[Track]) -> None:
    whole = passed(write(tracks)).index.audio[0]
    less = passed(write(tracks, Way(discard=10_000_000))).index.audio[0]
    assert whole.boundaries[-1] - less.boundaries[-1] == 480
    assert less.frames == whole.frames
    fewer = passed(write(tracks, Way(discard=30_000_000))).index.audio[0]
    assert fewer.frames == whole.frames - 1
    assert whole.boundaries[-1] - fewer.boundaries[-1] == 1440


def test_sound_whose_clock_runs_apart_stays_with_the_picture(tracks: list[Track]) -> None:
    """Half a percent fast: the grid begins anew, and no frame is more than five milliseconds from where the file has it."""
    fast = tuple(replace(frame, time=round(frame.time * 0.995)) for frame in tracks[1].frames)
    data = write(sound(tracks, frames=fast))
    check(passed(data), data)


def test_a_gap_in_the_sound_stays_a_gap(tracks: list[Track]) -> None:
    late = tuple(
        replace(frame, time=frame.time + (900 if number > 100 else 0)) for number, frame in enumerate(tracks[1].frames)
    )
    data = write(sound(tracks, frames=late))
    check(passed(data), data)


def test_sound_that_jumps_to_and_fro_is_not_served(tracks: list[Track], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgate.packaging.timing.MAX_RESTARTS", 50)
    wild = tuple(
        replace(frame, time=round(frame.time) + 8 * (number % 2)) for number, frame in enumerate(tracks[1].frames)
    )
    index = passed(write(sound(tracks, frames=wild))).index
    assert [code for _, code, _ in index.refused] == ["table_mismatch"]
    assert index.video is not None


def test_pictures_that_are_called_key_frames_and_are_none(tracks: list[Track]) -> None:
    lying = replace(tracks[0], frames=tuple(replace(frame, key=True) for frame in tracks[0].frames))
    honest, found = passed(write(tracks)).index.video, passed(write([lying, tracks[1]])).index.video
    assert honest is not None
    assert found is not None
    assert found.boundaries == honest.boundaries


def first_picture(data: bytes) -> VideoFrame:
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("roll", [0, 90, -90, 180, -180, 270])
def test_a_turned_picture_stays_turned(tracks: list[Track], roll: int) -> None:
    """As libav reads it out of the file, it reads it out of what is served."""
    turned = mkv.element(0x7670, mkv.number(0x7671, 0) + mkv.real(0x7675, float(roll)))
    data = write([replace(tracks[0], own=tracks[0].own + turned)])
    given = passed(data)
    assert given.index.video is not None
    assert given.index.video.rotation == -roll % 360
    assert first_picture(given.whole(given.index.video)).rotation == first_picture(data).rotation


def test_the_shape_of_pixels_is_kept(tracks: list[Track]) -> None:
    data = write([replace(tracks[0], own=tracks[0].own + mkv.number(0x54B0, 200) + mkv.number(0x54BA, 90))])
    given = passed(data)
    assert given.index.video is not None
    for one in (data, given.whole(given.index.video)):
        with av.open(io.BytesIO(one)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(5, 4)


def test_languages_and_what_is_beside(tracks: list[Track]) -> None:
    other = replace(tracks[1], number=3, codec="A_VORBIS", more=mkv.text(0x22B59C, "fra"))
    french = replace(tracks[1], number=4, more=mkv.text(0x22B59D, "deu-AT") + mkv.text(0x22B59C, "fra"))
    words = Track(9, 0x11, "S_TEXT/UTF8", b"", b"", (mkv.Frame(1000, True, b"words"),))
    index = passed(write([*tracks, other, words, french])).index
    assert [(track.number, track.language) for track in index.audio] == [(1, "eng"), (4, "deu")]
    assert [(place, code) for place, code, _ in index.refused] == [(2, "codec")]
    assert index.ends[2] == pytest.approx(Fraction(SECONDS), abs=0.1)


def _video(**changes: Any) -> Any:
    return lambda tracks: write([replace(tracks[0], **changes), tracks[1]])


REFUSED: dict[str, tuple[str, Any]] = {
    "compressed": ("packed", _video(more=mkv.element(0x6D80, mkv.element(0x6240, mkv.element(0x5034, mkv.number(0x4254, 3)))))),
    "a clock of its own": ("packed", _video(more=mkv.real(0x23314F, 1.5))),
    "cut at its edges": ("codec", lambda t: write([replace(t[0], own=t[0].own + mkv.number(0x54AA, 2)), t[1]])),
    "bent": ("codec", lambda t: write([replace(t[0], own=t[0].own + mkv.element(0x7670, mkv.number(0x7671, 1))), t[1]])),
    "another coding": ("codec", _video(codec="V_VP9")),
    "no configuration": ("no_config", _video(private=b"")),
    "no size": ("no_config", _video(own=b"")),
    "two tracks of one number": ("box_size", lambda t: write([t[0], replace(t[1], number=1)])),
    "another kind of EBML": ("codec", lambda t: mkv.header("other") + write(t)[len(mkv.header()) :]),
    "no key frames": ("no_keyframes", lambda t: write([replace(t[0], frames=t[0].frames[1:20])])),
    "pictures at one time": (
        "table_mismatch",
        lambda t: write([replace(t[0], frames=(t[0].frames[0], *(replace(f, time=400) for f in t[0].frames[1:3])))]),
    ),
    "several films in one": ("box_size", lambda t: write(t, Way(unknown=True)) * 2),
    "pictures before the tracks": ("no_tracks", lambda t: mkv.header() + mkv.element(mkv.SEGMENT, mkv.element(mkv.CLUSTER))),
    "days": ("too_long", lambda t: write([replace(t[0], frames=(replace(t[0].frames[0], time=2e8),))])),
    "nothing in it": ("table_short", lambda t: mkv.header() + mkv.element(mkv.SEGMENT, mkv.element(mkv.TRACKS, t[0].entry()))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_simple_is_refused_by_its_name(tracks: list[Track], name: str) -> None:
    code, make = REFUSED[name]
    with pytest.raises(IndexRefused) as refused:
        passed(make(tracks))
    assert refused.value.code == code
    assert refused.value.detail.endswith(".")


def test_what_cannot_be_served_is_not_read(tracks: list[Track]) -> None:
    data = Bytes(_video(codec="V_VP9")(tracks))
    with pytest.raises(IndexRefused):
        index_matroska(data, len(data.data))
    assert data.asked < 20_000 < len(data.data) // 4


def test_media_is_not_read(films: Path) -> None:
    path = by_ffmpeg(films, "large.mkv", *moving(12, "1280x720"), *tone(12), *CODED, "-b:v", "24M", *SOUND)
    source = Bytes(path.read_bytes())
    index_matroska(source, len(source.data))
    assert source.asked < len(source.data) / 6


def test_far_sources_are_read_in_few_large_pieces(tracks: list[Track], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamgate.packaging.matroska.FAR_STEP", 64 << 10)
    data = write(tracks)
    near, far = Bytes(data), Bytes(data)
    assert index_matroska(far, len(data), far=True).blob == index_matroska(near, len(data)).blob
    assert far.reads <= len(data) / (64 << 10) + 2 + SECONDS


def test_a_film_that_breaks_off_is_what_there_is_of_it(tracks: list[Track]) -> None:
    """As libav reads it: whole frames up to the end."""
    for way in (Way(), Way(unknown=True)):
        data = write(tracks, way)[: -len(write(tracks, way)) // 3]
        given = passed(data)
        assert given.index.cut_off
        check(given, data)


@settings(max_examples=40, deadline=None)
@drawn_from(seed=st.integers(0, 1 << 30), way=st.sampled_from([*WAYS.values()]))
def test_a_file_that_grows_is_scanned_once(tracks: list[Track], seed: int, way: Way) -> None:
    """Whatever the steps: the same frames, nothing read that is not there yet, and hardly anything read twice."""
    data = write(tracks, way)
    whole = Scan(Bytes(data))
    whole.advance(len(data), last=True)
    chance = random.Random(seed)
    there = 0

    def read(offset: int, length: int) -> bytes:
        assert offset + length <= there
        return data[offset : offset + length]

    growing, behind = Scan(read), 0
    while there < len(data):
        there = min(len(data), there + chance.choice((1, 3, 50, 4000, 100_000)))
        growing.advance(there, last=there == len(data))
        assert growing.at >= behind
        behind = growing.at
    assert growing.ended
    assert not growing.cut_off
    assert {n: f.table().tolist() for n, f in growing.frames.items()} == {
        n: f.table().tolist() for n, f in whole.frames.items()
    }


frame = st.binary(min_size=1, max_size=700)


@drawn_from(frames=st.lists(frame, min_size=1, max_size=20), kind=st.sampled_from([mkv.XIPH, mkv.EBML_LACE, mkv.FIXED]))
def test_laces_give_the_frames_that_were_laced(frames: list[bytes], kind: int) -> None:
    if kind == mkv.FIXED:
        frames = [frames[0]] * len(frames)
    data = b"before" + mkv.lace(frames, kind)
    at, sizes = laced(lambda offset, length: data[offset : offset + length], 6, len(data) - 6, kind)
    assert sizes == [len(frame) for frame in frames]
    assert data[at:] == b"".join(frames)


@drawn_from(data=st.binary(max_size=300), kind=st.sampled_from([mkv.XIPH, mkv.EBML_LACE, mkv.FIXED]))
def test_laces_that_are_none_are_refused(data: bytes, kind: int) -> None:
    try:
        at, sizes = laced(lambda offset, length: data[offset : offset + length], 0, len(data), kind)
    except IndexRefused:
        return
    assert min(sizes) > 0
    assert at + sum(sizes) == len(data)
