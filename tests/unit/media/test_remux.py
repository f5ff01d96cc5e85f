"""MPEG-TS written out is the source: the same frames at the same times; what would not be is refused and leaves nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from streamgate.media import remux as remuxing
from streamgate.media.model import Limits, remuxed_file
from streamgate.media.opening import Source
from streamgate.media.probe import probe
from streamgate.media.remux import Remuxed, remux
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.transport import Pictures
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.passed import TOGETHER_S, Passed, check_times, decoded

SECONDS = 9
X264 = (
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-threads",
    "1",
    "-pix_fmt",
    "yuv420p",
    "-bf",
    "3",
    "-g",
    "50",
    "-b_strategy",
    "0",
)
AAC = ("-c:a", "aac", "-b:a", "64k")
PICTURE, SOUND = moving(SECONDS, "160x90"), tone(SECONDS)

KINDS: dict[str, tuple[str, ...]] = {
    "plain.ts": (*PICTURE, *SOUND, *X264, *AAC),
    "wraps.ts": (*PICTURE, *SOUND, *X264, *AAC, "-output_ts_offset", "95440"),
    "hours-in.ts": (*PICTURE, *SOUND, *X264, *AAC, "-output_ts_offset", "40000"),
    "sound-later.ts": (*PICTURE, "-itsoffset", "0.7", *SOUND, *X264, *AAC),
    "picture-later.ts": ("-itsoffset", "0.48", *PICTURE, *SOUND, *X264, *AAC),
    "mono-44100.ts": (*PICTURE, *SOUND, *X264, *AAC, "-ar", "44100", "-ac", "1"),
    "silent.ts": (*PICTURE, *X264),
    "sound-only.ts": (*SOUND, *AAC),
    "blu-ray.m2ts": (*PICTURE, *SOUND, *X264, *AAC),
    "hevc.ts": (*moving(SECONDS, "160x120", 12), *SOUND, "-c:v", "libx265", "-preset", "ultrafast",
                "-x265-params", "log-level=none:open-gop=0:keyint=24:pools=1", *AAC),
}  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Path:
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


def written(path: Path, room: Path, within_s: float = 60, segment_s: float = 4.0) -> Remuxed:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = Source(path.stat().st_size, str(path), ours)
        return remux(source, probe(source, Limits()), folder=room, within_s=within_s, segment_s=segment_s)


def check(path: Path, made: Remuxed, room: Path) -> None:
    given = Passed(b"".join((room / remuxed_file(n)).read_bytes() for n in range(len(made.lengths))), made.index)
    source = path.read_bytes()
    for track in (given.index.video, *given.index.audio):
        if track is not None:
            check_times(given, track)
            there, here = decoded(source, track.kind), decoded(given.whole(track), track.kind)
            assert [frame.digest for frame in here] == [frame.digest for frame in there]
            apart = max(abs(a.time + given.index.origin - b.time) for a, b in zip(here, there, strict=True))
            assert apart < (0.001 if track.kind == "video" else TOGETHER_S)


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_times_are_those_of_the_source(films: Path, room: Path, name: str) -> None:
    path = by_ffmpeg(films, name, *KINDS[name])
    made = written(path, room)
    assert made.index.refused == ()
    assert (made.index.video is None) == (name == "sound-only.ts")
    assert bool(made.index.audio) == (name != "silent.ts")
    check(path, made, room)


def test_more_than_one_file_can_hold(films: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remuxing, "PART", 100_000)
    path = by_ffmpeg(films, "plain.ts", *KINDS["plain.ts"])
    made = written(path, room)
    assert len(made.lengths) > 2
    assert max(made.lengths) <= 100_000
    check(path, made, room)


def test_sound_of_other_kinds_is_left_to_the_encoder(films: Path, room: Path) -> None:
    path = by_ffmpeg(
        films, "both.ts", *PICTURE, *SOUND, *SOUND, "-map", "0", "-map", "1", "-map", "2", *X264, *AAC, "-c:a:0", "ac3"
    )
    made = written(path, room)
    assert made.index.video is not None
    assert [track.number for track in made.index.audio] == [2]


def joined(folder: Path, *films: bytes) -> Path:
    path = folder / "joined.ts"
    path.write_bytes(b"".join(films))
    return path


def _ts(films: Path, name: str, *arguments: str) -> bytes:
    return by_ffmpeg(films, name, *(arguments or KINDS[name])).read_bytes()


REFUSED: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "a clock that goes back": (
        "table_mismatch",
        lambda films, folder: joined(folder, *[_ts(films, "plain.ts")] * 2),
    ),
    "a clock that goes on by hours": (
        "table_mismatch",
        lambda films, folder: joined(folder, _ts(films, "plain.ts"), _ts(films, "hours-in.ts")),
    ),
    "packets that are missing": (
        "table_mismatch",
        lambda films, folder: joined(folder, _ts(films, "plain.ts")[: 188 * 300], _ts(films, "plain.ts")[188 * 303 :]),
    ),
    "old video": ("codec", lambda films, _: by_ffmpeg(films, "old.ts", *PICTURE, *SOUND, "-c:v", "mpeg2video", *AAC)),
    "ten bits": ("codec", lambda films, _: by_ffmpeg(films, "ten.ts", *PICTURE, *X264, "-pix_fmt", "yuv420p10le")),
    "sound of another kind": ("codec", lambda films, _: by_ffmpeg(films, "ac3.ts", *SOUND, "-c:a", "ac3")),
    "key frames too far apart": (
        "long_gop",
        lambda films, _: by_ffmpeg(films, "rare.ts", *moving(25, "64x48", 5), *X264, "-g", "1000"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_simple_is_refused_by_its_name_and_leaves_nothing(
    films: Path, room: Path, tmp_path: Path, name: str
) -> None:
    code, make = REFUSED[name]
    with pytest.raises(IndexRefused) as refused:
        written(make(films, tmp_path), room)
    assert refused.value.code == code
    assert refused.value.detail.endswith(".")
    assert list(room.iterdir()) == []


def test_a_coding_that_changes_is_refused(films: Path) -> None:
    small, large = (by_ffmpeg(films, f"{size}.ts", *moving(1, size), *X264) for size in ("160x90", "320x180"))
    with av.open(str(small)) as first, av.open(str(large)) as second:
        parameters = bytes(first.streams.video[0].codec_context.extradata or b"")
        track = Pictures(len, "h264", parameters, (160, 90), (1, 1))
        track.add(bytes(next(first.demux(video=0))), 0, 0, key=True)
        with pytest.raises(IndexRefused) as refused:
            track.add(bytes(next(second.demux(video=0))), 3600, 3600, key=True)
    assert refused.value.code == "stsd_entries"


def test_no_room_and_no_time_are_refusals_too(films: Path, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = by_ffmpeg(films, "plain.ts", *KINDS["plain.ts"])
    with pytest.raises(IndexRefused) as late:
        written(path, room, within_s=-1)
    assert late.value.code == "too_long"

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remuxing.Parts, "write", full)
    with pytest.raises(IndexRefused) as refused:
        written(path, room)
    assert refused.value.code == "no_room"
    assert list(room.iterdir()) == []
