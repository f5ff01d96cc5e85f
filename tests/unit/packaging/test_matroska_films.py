"""Matroska and WebM out of a sample index are the source: the same frames at the same times, whoever wrote the file and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.films import by_ffmpeg, moving, tone
from tests.support.passed import check, passed

SECONDS = 11
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-pix_fmt", "yuv420p")
REORDERED = (*X264, "-bf", "3", "-g", "50", "-b_strategy", "0")
AAC = ("-c:a", "aac", "-b:a", "64k")
PICTURE, SOUND = moving(SECONDS), tone(SECONDS)

KINDS: dict[str, tuple[str, ...]] = {
    "b-frames.mkv": (*PICTURE, *SOUND, *REORDERED, *AAC),
    "live.mkv": (*PICTURE, *SOUND, *REORDERED, *AAC, "-live", "1"),
    "small-clusters.mkv": (*PICTURE, *SOUND, *REORDERED, *AAC, "-cluster_time_limit", "90"),
    "long-groups.mkv": (*PICTURE, *SOUND, *X264, "-bf", "3", "-g", "250", "-sc_threshold", "40", *AAC),
    "all-key.mkv": (*PICTURE, *SOUND, *X264, "-g", "1", *AAC),
    "silent.mkv": (*PICTURE, *REORDERED),
    "sound-only.mka": (*SOUND, *AAC),
    "mono-44100.mkv": (*PICTURE, *SOUND, *REORDERED, *AAC, "-ar", "44100", "-ac", "1"),
    "sound-later.mkv": (*PICTURE, "-itsoffset", "0.7", *SOUND, *REORDERED, *AAC),
    "picture-later.mkv": ("-itsoffset", "0.48", *PICTURE, *SOUND, *REORDERED, *AAC),
    "both-later.mkv": ("-itsoffset", "3.2", *PICTURE, "-itsoffset", "3.2", *SOUND, *REORDERED, *AAC),
    "ntsc.mkv": (*moving(SECONDS, rate="30000/1001"), *SOUND, *REORDERED, *AAC),
    "one-a-second.mkv": (*moving(SECONDS, rate=1), *SOUND, *X264, "-g", "3", *AAC),
    "hevc-closed.mkv": (*moving(SECONDS, "160x120", 12), *SOUND, "-c:v", "libx265", "-preset", "ultrafast",
                        "-x265-params", "log-level=none:open-gop=0:keyint=24:pools=1", *AAC),
    "opus.mkv": (*PICTURE, *SOUND, *REORDERED, "-c:a", "libopus"),
    "opus-60-ms.webm": (*SOUND, "-c:a", "libopus", "-frame_duration", "60", "-b:a", "32k"),
    "opus-stereo-5-ms.mka": (*SOUND, "-c:a", "libopus", "-frame_duration", "5", "-ac", "2"),
    "opus-six-channels.mka": (*SOUND, "-c:a", "libopus", "-ac", "6"),
    "av1.mkv": (*moving(SECONDS, "160x120", 12), *SOUND, "-c:v", "libsvtav1", "-preset", "12", "-g", "24", *AAC),
}  # fmt: skip


def made(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else by_ffmpeg(folder, name, *KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_times_are_those_of_the_source(films: Path, name: str) -> None:
    data = made(films, name).read_bytes()
    given = passed(data)
    assert given.index.refused == ()
    assert (given.index.video is None) == name.endswith((".mka", ".webm"))
    assert bool(given.index.audio) == (name != "silent.mkv")
    check(given, data)
