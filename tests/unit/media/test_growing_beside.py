"""While a film arrives what passes through plays, cut as when it is whole; what has to be encoded waits for the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.media import growing
from streamgate.media.model import LadderSettings, Limits, MediaPlan
from streamgate.media.sandbox import Sandbox
from tests.support.arriving import Watched
from tests.support.films import by_ffmpeg, moving, tone
from tools.fuzz import Bytes

LADDER = LadderSettings(rungs=(120,), preset="ultrafast", passthrough=True, segment_s=1.0)
LATE = ("-itsoffset", "0.48", *moving(9, "160x90"), *tone(9))
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:open-gop=0:keyint=24:pools=1")

CODED = {
    "ac3.mkv": (*LATE, *X264, "-c:a", "ac3"),
    "opus.mkv": (*LATE, *X264, "-c:a", "libopus"),
    "hevc.mkv": (*moving(9, "160x90"), *X265),
}
COPIES = {
    "first.mp4": ("ac3.mkv", "-movflags", "+faststart"),
    "fragments.mp4": ("ac3.mkv", "-movflags", "+frag_keyframe+delay_moov"),
    "film.ts": ("ac3.mkv",),
    "hevc.mp4": ("hevc.mkv", "-movflags", "+faststart", "-tag:v", "hvc1"),
}
PLAYED = {
    "ac3.mkv": (["source"], growing.SOUND_LATER),
    "opus.mkv": (["source", "audio-1-opus"], None),
    "hevc.mkv": (["source"], growing.NOT_EVERYWHERE),
    "first.mp4": (["source"], growing.SOUND_LATER),
    "fragments.mp4": (["source"], growing.SOUND_LATER),
    "film.ts": (["source"], growing.SOUND_LATER),
    "hevc.mp4": (["source"], growing.NOT_EVERYWHERE),
}


def made(films: Path, name: str) -> Path:
    if name in CODED:
        return by_ffmpeg(films, name, *CODED[name])
    source, *flags = COPIES[name]
    return by_ffmpeg(films, name, "-i", str(made(films, source)), "-c", "copy", *flags)


@pytest.mark.parametrize("name", PLAYED)
async def test_what_passes_plays_as_it_does_in_the_end(
    sandbox: Sandbox, films: Path, tmp_path: Path, name: str
) -> None:
    path, room, watched = made(films, name), tmp_path / "room", tmp_path / "watched"
    room.mkdir()
    watched.mkdir()
    whole = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60, folder=room)
    data = path.read_bytes()
    seen = Watched(data, watched)
    assert seen.until([len(data) // 2, len(data) * 3 // 4]).reason == ""
    shown = [(plan, count) for plan, count in zip(seen.plans, seen.counts, strict=True) if plan is not None]
    assert shown[-1][1] > 2
    names, reason = PLAYED[name]
    final = {rendition.name: rendition for rendition in whole.renditions}
    assert len(final) > len(names), "more than what passed at once is made in the end"
    for plan, count in shown:
        assert [rendition.name for rendition in plan.renditions] == names
        assert plan.reason == (reason or whole.reason)
        for rendition in plan.renditions:
            there = final[rendition.name]
            assert (rendition.init, rendition.codecs, rendition.passthrough) == (
                there.init,
                there.codecs,
                there.passthrough,
            )
            assert rendition.boundaries[: count + 1] == there.boundaries[: count + 1]


def hears(plan: MediaPlan | None) -> list[str]:
    return [] if plan is None else [rendition.name for rendition in plan.renditions if rendition.kind == "audio"]


SOUNDS = {
    "mp2.ts": ("-c:a", "mp2"),
    "eac3.ts": ("-c:a", "eac3"),
    "latm.ts": ("-c:a", "aac", "-mpegts_flags", "latm"),
    "both.ts": ("-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:a:0", "ac3", "-c:a:1", "aac"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_pictures_of_a_transport_stream_play_whatever_its_sound_is(films: Path, tmp_path: Path, name: str) -> None:
    """Sound that passes plays with them, also beside some that does not."""
    path = by_ffmpeg(films, name, "-i", str(made(films, "ac3.mkv")), "-c:v", "copy", *SOUNDS[name])
    seen = Watched(path.read_bytes(), tmp_path)
    assert seen.look(path.stat().st_size).count > 2
    assert hears(seen.plans[-1]) == (["audio-2"] if name == "both.ts" else [])
