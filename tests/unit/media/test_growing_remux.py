"""An MPEG-TS that still arrives: wherever looks at it end, what they write out together is what the whole file gives."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest

from streamgate.media.growingremux import finish
from streamgate.media.model import Limits, remuxed_file
from streamgate.media.opening import Source
from streamgate.media.probe import probe
from streamgate.packaging import growingtransport
from streamgate.packaging.segments import StoredIndex, assemble
from tests.support.arriving import Watched
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.passed import Bytes, Passed, decoded
from tests.unit.media.test_remux import AAC, KINDS, PICTURE, SOUND, X264, Remuxed, joined, written

HEVC_SIZE, HEVC = moving(9, "160x120", 12), ("-c:v", "libx265", "-preset", "ultrafast")
FORMS = {
    "hevc-in-slices.ts": (*HEVC_SIZE, *HEVC, "-x265-params",
                          "log-level=none:open-gop=0:keyint=24:pools=1:slices=2:aud=1:hrd=1:vbv-maxrate=500:vbv-bufsize=500"),
    "ac3-first.ts": ("-itsoffset", "0.48", *PICTURE, *SOUND, *X264, "-c:a", "ac3", "-output_ts_offset", "95440"),
}  # fmt: skip
"""Further ones: what is written out is not all of the film, or otherwise coded."""

PLAYED = sorted((KINDS | FORMS).keys() - {"hours-in.ts", "picture-later.ts"})

LONG = (*moving(20, "64x48"), *tone(20), *X264, "-g", "25", *AAC)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    folder = tmp_path / "room"
    folder.mkdir()
    return folder


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


def whole_of(path: Path, room: Path) -> tuple[Passed, Remuxed]:
    made = written(path, room, segment_s=1.0)
    return Passed(b"".join((room / remuxed_file(n)).read_bytes() for n in range(len(made.lengths))), made.index), made


def segments(seen: Watched, number: int) -> list[list[bytes]]:
    """Of the ``number``-th plan: all that was listed by then, by rendition."""
    plan, count = seen.plans[number], seen.counts[number]
    assert plan is not None
    size = int.from_bytes(plan.index[8:16], "little")
    stored = StoredIndex.load(plan.index, size)
    read = Bytes(seen.written[:size])
    made = []
    for rendition in plan.renditions:
        track = rendition.passthrough
        assert track is not None
        there = min(count, len(rendition.boundaries) - 1)
        made.append([assemble(stored.segment(track, n), read) for n in range(there)])
    return made


@pytest.mark.parametrize("name", PLAYED)
def test_what_was_listed_is_what_the_whole_file_gives(films: Path, room: Path, watched: Path, name: str) -> None:
    path = by_ffmpeg(films, name, *(KINDS | FORMS)[name])
    data = path.read_bytes()
    whole, _ = whole_of(path, room)
    chance = random.Random(name)
    ends = sorted({*(chance.randrange(1200, len(data)) for _ in range(12)), len(data) * 2 // 3, len(data)})
    seen = Watched(data, watched)
    assert seen.until(ends).wanted is not None
    assert len(seen.counts) > 2, "a film that plays only as a whole shows nothing"
    tracks = [track for track in (whole.index.video, *whole.index.audio) if track is not None]
    for number in range(1, len(seen.plans)):
        plan, count = seen.plans[number], seen.counts[number]
        assert plan is not None
        assert count > seen.counts[number - 1]
        assert [r.init for r in plan.renditions] == [track.init for track in tracks]
        for listed, rendition, track in zip(segments(seen, number), plan.renditions, tracks, strict=True):
            assert listed == whole.segments(track)[: len(listed)]
            assert rendition.boundaries[1 : count + 1] == track.boundaries[1 : count + 1]
    for listed, track in zip(segments(seen, -1), tracks, strict=True):
        shown = decoded(track.init + b"".join(listed), track.kind)
        source = decoded(data, track.kind)[: len(shown)]
        assert [frame.digest for frame in shown[:-1]] == [frame.digest for frame in source[:-1]]
        assert max(abs(a.time + whole.index.origin - b.time) for a, b in zip(shown, source, strict=True)) < 0.005
    check_whole(path, whole, watched)


def check_whole(path: Path, whole: Passed, watched: Path) -> None:
    """A plan that goes on from a look is that of the film written out as a whole, but for the order in which samples lie."""
    data = path.read_bytes()
    seen = Watched(data, watched)
    seen.look(len(data) * 3 // 4)
    assert seen.last.state
    made = finished(path, seen, watched)
    assert made is not None
    rest = b"".join((watched / remuxed_file(n)).read_bytes() for n in range(len(made.lengths)))
    assert (made.before, len(rest)) == (len(seen.written), sum(made.lengths))
    given = Passed(seen.written + rest, made.index)
    assert given.index.origin == whole.index.origin
    pairs = ((given.index.video, whole.index.video), *zip(given.index.audio, whole.index.audio, strict=True))
    for here, there in pairs:
        assert (here is None) == (there is None)
        if here is not None and there is not None:
            assert (here.init, here.boundaries) == (there.init, there.boundaries)
            assert given.segments(here) == whole.segments(there)


def finished(path: Path, seen: Watched, folder: Path, within_s: float = 60) -> Remuxed | None:
    data = path.read_bytes()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = Source(len(data), str(path), ours)
        found, until = probe(source, Limits()), time.monotonic() + within_s
        return finish(source, Bytes(data), found, seen.last, folder, until, 1.0)


def test_where_the_rest_is_not_what_it_seemed_the_whole_is_written_out_anew(
    films: Path, watched: Path, tmp_path: Path
) -> None:
    plain = _ts(films, "plain.ts")
    seen = Watched(plain, watched)
    seen.look(len(plain) * 3 // 4)
    begun = plain[: len(plain) // 188 * 3 // 4 * 188]
    rests = {"missing": plain[len(begun) + 376 :], "nothing": bytes(len(plain) - len(begun))}
    for name, rest in rests.items():
        assert finished(joined(tmp_path, begun, rest), seen, watched) is None, name
        assert list(watched.iterdir()) == [], name
    other = by_ffmpeg(films, "silent.ts", *KINDS["silent.ts"])
    assert finished(other, seen, watched) is None
    whole = by_ffmpeg(films, "plain.ts", *KINDS["plain.ts"])
    assert finished(whole, seen, watched, within_s=-1) is None
    early = Watched(by_ffmpeg(films, "long.ts", *LONG).read_bytes(), watched)
    early.look(len(early.data) // 2)
    assert early.last.state
    assert finished(films / "long.ts", early, watched) is None, "that would take longer"
    assert finished(whole, seen, watched) is not None


def test_every_end_of_the_file_is_looked_at_by_a_look_of_its_own(films: Path, room: Path, watched: Path) -> None:
    """Looks in the middle of packets, pictures and frames change nothing of what is written out in the end."""
    data = by_ffmpeg(films, "long.ts", *LONG).read_bytes()
    once, often = Watched(data, watched), Watched(data, watched)
    once.look(len(data))
    often.until([*range(len(data) // 5, len(data), 3001), len(data)])
    assert len(often.plans) > 10
    assert segments(often, -1) == segments(once, -1)


def test_what_is_too_much_for_one_look_is_left_to_the_next(
    films: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = by_ffmpeg(films, "long.ts", *LONG).read_bytes()
    once, often = Watched(data, watched), Watched(data, watched)
    once.look(len(data))
    monkeypatch.setattr(growingtransport, "MOST", len(data) * 2 // 3)
    first = often.look(len(data))
    assert 0 < first.count < once.last.count
    assert first.wanted is not None
    assert first.wanted == first.looked_at < len(data)
    often.look(len(data))
    assert often.last.count == once.last.count
    assert segments(often, -1) == segments(once, -1)


def test_key_frames_that_are_too_far_apart_for_a_look_end_it(
    films: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = by_ffmpeg(films, "long.ts", *LONG).read_bytes()
    monkeypatch.setattr(growingtransport, "MOST", len(data) // 10)
    seen = Watched(data, watched).look(len(data))
    assert (seen.wanted, seen.written) == (None, ())
    assert "key frames" in seen.reason


def _ts(films: Path, name: str, *arguments: str) -> bytes:
    return by_ffmpeg(films, name, *(arguments or KINDS[name])).read_bytes()


BROKEN = {
    "a clock that goes back": lambda films: [_ts(films, "plain.ts")] * 2,
    "a clock that goes on by hours": lambda films: [_ts(films, "plain.ts"), _ts(films, "hours-in.ts")],
    "packets that are missing": lambda films: [_ts(films, "plain.ts"), _ts(films, "plain.ts")[188 * 3 :]],
    "other pictures": lambda films: [
        _ts(films, "plain.ts"),
        _ts(films, "larger.ts", *moving(9, "320x180"), *SOUND, *X264, *AAC, "-output_ts_offset", "9"),
    ],
    "something else": lambda films: [_ts(films, "plain.ts"), bytes(200_000)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_simple_ends_the_listing_and_what_was_listed_stays(
    films: Path, watched: Path, tmp_path: Path, name: str
) -> None:
    pieces = BROKEN[name](films)
    data = joined(tmp_path, *pieces).read_bytes()
    seen = Watched(data, watched)
    listed = seen.look(len(pieces[0])).count
    assert listed > 1
    before = segments(seen, -1)
    found = seen.look(len(data))
    assert (found.wanted, found.written) == (None, ())
    assert found.reason.endswith(".")
    assert segments(seen, -1) == before


NEVER = {
    "sound of another kind": (*SOUND, "-c:a", "ac3"),
    "old video": (*PICTURE, *SOUND, "-c:v", "mpeg2video", *AAC),
    "ten bits": (*HEVC_SIZE, *HEVC, "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none:pools=1"),
    "open groups": (
        *moving(25, "160x120", 12),
        *HEVC,
        "-x265-params",
        "log-level=none:open-gop=1:keyint=24:bframes=3:pools=1",
    ),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_has_to_be_encoded_waits_for_its_last_byte(films: Path, watched: Path, name: str) -> None:
    data = by_ffmpeg(films, f"{name.replace(' ', '-')}.ts", *NEVER[name]).read_bytes()
    found = Watched(data, watched).until([len(data) // 2, len(data)])
    assert (found.wanted, found.plan, found.written) == (None, None, ())
    assert found.reason.endswith(".")
