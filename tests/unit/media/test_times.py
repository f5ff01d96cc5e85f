"""When pictures are shown and sounds are heard, whatever the container says about it and however little."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.media.decoding import Ticks
from streamgate.media.model import LadderSettings, MediaPlan, PlannedRendition, remuxed_file
from streamgate.media.sandbox import Sandbox
from streamgate.packaging.segments import StoredIndex, assemble
from tests.support.beats import beats_heard, beats_seen
from tests.support.encoding import encode
from tests.support.films import BEAT_S, beeps, by_ffmpeg, flashes, frame_count, moving, tone
from tools.corpus import examine

SMALL = LadderSettings(rungs=(120,), preset="ultrafast")
PASSING = LadderSettings(rungs=(120,), preset="ultrafast", passthrough=True)
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "25", "-bf", "2")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "3")
BOTH = (*flashes(), *beeps())

AVI: dict[str, tuple[str, ...]] = {
    "without B-frames": MPEG4,
    "B-frames": (*MPEG4, "-bf", "2", "-g", "50"),
    "packed B-frames": ("-c:v", "libxvid", "-q:v", "3", "-bf", "2", "-g", "50"),
    "H.264 with open groups": (*X264[:6], "-bf", "3", "-g", "50", "-x264-params", "open-gop=1"),
}


@pytest.mark.parametrize("kind", AVI)
async def test_avi_says_no_times_and_every_picture_has_its_own(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    """Nine seconds: the second chunk begins in the middle, at a group whose first pictures hang on the one before."""
    path = by_ffmpeg(tmp_path, "film.avi", *moving(9, "160x120"), *AVI[kind])
    (tmp_path / "out").mkdir()
    row = await examine(sandbox, path, tmp_path / "out")
    assert (row.outcome, row.detail, row.drift_ms) == ("plays", "", "0.0 ms"), row


async def test_a_lost_picture_of_an_avi_does_not_move_the_others(sandbox: Sandbox, tmp_path: Path) -> None:
    whole = by_ffmpeg(tmp_path, "film.avi", *flashes(6), *MPEG4, "-bf", "2", "-g", "25")
    data = bytearray(whole.read_bytes())
    start = data.index(b"movi")
    for _ in range(20):
        start = data.index(b"00dc", start + 4)
    (size,) = struct.unpack_from("<I", data, start + 4)
    data[start + 8 : start + 8 + size] = bytes(size)
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert beats_seen(made.files["120p"])[1:] == pytest.approx([BEAT_S, 2 * BEAT_S], abs=0.001)


IN_STEP: dict[str, tuple[str, tuple[str, ...]]] = {
    "AAC in MP4": ("mp4", (*BOTH, *X264, "-c:a", "aac")),
    "Opus in MP4": ("mp4", (*BOTH, *X264, "-c:a", "libopus")),
    "MP3 in MP4": ("mp4", (*BOTH, *X264, "-c:a", "libmp3lame")),
    "AC-3 in MP4": ("mp4", (*BOTH, *X264, "-c:a", "ac3")),
    "PCM in MOV": ("mov", (*BOTH, *X264, "-c:a", "pcm_s24le")),
    "PCM in AVI": ("avi", (*BOTH, *MPEG4, "-bf", "2", "-c:a", "pcm_s16le")),
    "Opus in Matroska": ("mkv", (*BOTH, *X264, "-c:a", "libopus")),
    "FLAC in Matroska": ("mkv", (*BOTH, *X264, "-c:a", "flac")),
    "MP3 in Matroska": ("mkv", (*BOTH, *X264, "-c:a", "libmp3lame")),
    "Vorbis in WebM": ("webm", (*BOTH, "-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis")),
    "Vorbis in Ogg": ("ogv", (*BOTH, "-c:v", "libtheora", "-q:v", "8", "-c:a", "libvorbis")),
    "AAC in MPEG-TS": ("ts", (*BOTH, *X264, "-c:a", "aac")),
    "MP2 in MPEG-PS": ("mpg", (*BOTH, "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2")),
    "AC-3 in MPEG-TS that begins late": ("ts", (*BOTH, *X264, "-c:a", "ac3", "-output_ts_offset", "4000")),
    "MPEG-TS whose clock runs over": ("ts", (*BOTH, *X264, "-c:a", "aac", "-output_ts_offset", "95440.7")),
    "MP3 in FLV": ("flv", (*BOTH, *X264, "-c:a", "libmp3lame", "-ar", "44100")),
    "WMA in ASF": ("asf", (*BOTH, "-c:v", "wmv2", "-c:a", "wmav2")),
    "fragments": ("mp4", (*BOTH, *X264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof")),
}  # fmt: skip


@pytest.mark.parametrize("kind", IN_STEP)
async def test_sound_and_picture_stay_in_step(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    container, arguments = IN_STEP[kind]
    made = await encode(sandbox, by_ffmpeg(tmp_path, f"film.{container}", *arguments), tmp_path / "out", ladder=SMALL)
    seen, heard = beats_seen(made.files["120p"]), beats_heard(made.files["audio-1"])
    assert len(seen) == len(heard) == 3
    # The first beep begins in the middle of an encoder's first frame.
    assert max(abs(a - b) for a, b in zip(seen[1:], heard[1:], strict=True)) < 0.010
    assert seen[2] - seen[1] == pytest.approx(BEAT_S, abs=0.002)
    # Ogg leaves out pictures that stay, so that only sound says how long such a film is.
    assert made.plan.duration == pytest.approx(5, abs=0.11)


LATE = ("-itsoffset", "1.5")


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("late", ["picture", "sound"])
async def test_a_track_that_begins_later_stays_later(
    sandbox: Sandbox, tmp_path: Path, container: str, late: str
) -> None:
    inputs = (*LATE, *flashes(), *beeps()) if late == "picture" else (*flashes(), *LATE, *beeps())
    path = by_ffmpeg(tmp_path, f"film.{container}", *inputs, *X264, "-c:a", "aac")
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    seen, heard = beats_seen(made.files["120p"]), beats_heard(made.files["audio-1"])
    # Until the picture begins, its first one is shown: an MP4 that is cut at zero may carry half a frame of shift.
    apart = 1.5 if late == "picture" else -1.5
    assert [a - b for a, b in zip(seen[1:], heard[1:], strict=True)] == pytest.approx([apart] * 2, abs=0.025)
    assert made.plan.duration == pytest.approx(6.5, abs=0.06)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
async def test_sound_encoded_beside_a_picture_that_passes_is_heard_from_its_own_beginning(
    sandbox: Sandbox, tmp_path: Path, container: str
) -> None:
    """As ffmpeg and players have it, the film begins with the earlier of both."""
    room = tmp_path / "room"
    room.mkdir()
    as_they_come = ("-fps_mode", "passthrough")
    path = by_ffmpeg(tmp_path, f"film.{container}", *LATE, *flashes(), *beeps(), *X264, "-c:a", "ac3", *as_they_come)
    made = await encode(sandbox, path, tmp_path / "out", ladder=PASSING, room=room)
    (source,) = (rendition for rendition in made.plan.renditions if rendition.passthrough is not None)
    bytes_of = room / remuxed_file(0) if made.plan.remuxed else path
    assert beats_seen(served(made.plan, source, bytes_of, tmp_path)) == pytest.approx([1.5, 3.5, 5.5], abs=0.03)
    assert beats_heard(made.files["audio-1"]) == pytest.approx([0, 2, 4], abs=0.03)
    assert made.plan.duration == pytest.approx(6.5, abs=0.06)


def served(plan: MediaPlan, rendition: PlannedRendition, source: Path, folder: Path) -> Path:
    """What passes through, as a player gets it out of the bytes of ``source``."""
    data = source.read_bytes()
    stored = StoredIndex.load(plan.index, len(data))
    assert rendition.passthrough is not None
    layouts = [stored.segment(rendition.passthrough, number) for number in range(len(rendition.boundaries) - 1)]
    path = folder / "served.mp4"
    path.write_bytes(
        rendition.init
        + b"".join(assemble(layout, lambda offset, length: data[offset : offset + length]) for layout in layouts)
    )
    return path


@pytest.mark.parametrize(("container", "audio"), [("mp4", "aac"), ("mkv", "libopus"), ("ts", "mp2")])
@pytest.mark.parametrize("longer", ["picture", "sound"])
async def test_the_longer_track_says_how_long_the_film_is(
    sandbox: Sandbox, tmp_path: Path, container: str, audio: str, longer: str
) -> None:
    picture, sound = (9, 5) if longer == "picture" else (5, 9)
    inputs = (*moving(picture, "160x120"), *tone(sound))
    path = by_ffmpeg(tmp_path, f"film.{container}", *inputs, *X264, "-c:a", audio)
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert made.plan.duration == pytest.approx(9, abs=0.06)
    assert frame_count(made.files["120p"]) == picture * 25
    ends = {r.kind: r.boundaries[-1] / r.timescale for r in made.plan.renditions}
    assert ends == {"video": pytest.approx(picture, abs=0.03), "audio": pytest.approx(sound, abs=0.06)}


async def test_silence_and_standstill_keep_their_length(sandbox: Sandbox, tmp_path: Path) -> None:
    """Twenty seconds of nothing in the middle: the picture stays, the sound is silent, and what follows is on time."""
    path = by_ffmpeg(
        tmp_path, "film.mkv", *flashes(26), *beeps(26), "-vf", "select='lt(t,3)+gt(t,21.9)'", "-fps_mode", "vfr",
        "-af", "aselect='lt(t,3)+gt(t,21.9)'", *X264, "-c:a", "flac",
    )  # fmt: skip
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert beats_seen(made.files["120p"]) == pytest.approx([0, 2, 22, 24], abs=0.002)
    assert beats_heard(made.files["audio-1"])[1:] == pytest.approx([2, 22, 24], abs=0.010)


async def test_a_picture_every_five_seconds_is_shown_in_every_segment(sandbox: Sandbox, tmp_path: Path) -> None:
    path = by_ffmpeg(tmp_path, "film.mp4", *moving(20, "160x120", "1/5"), *X264)
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    (rendition,) = made.video
    assert len(rendition.boundaries) - 1 == 5
    assert frame_count(made.files["120p"]) >= 5
    assert made.plan.duration == pytest.approx(20)


async def test_a_part_cut_out_without_encoding_begins_where_its_edit_list_says(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    whole = by_ffmpeg(tmp_path, "whole.mp4", *flashes(9), *beeps(9), *X264[:6], "-g", "50", "-c:a", "aac")
    path = by_ffmpeg(tmp_path, "part.mp4", "-ss", "1.3", "-i", str(whole), "-t", "6", "-c", "copy")
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    seen, heard = beats_seen(made.files["120p"]), beats_heard(made.files["audio-1"])
    assert max(abs(a - b) for a, b in zip(seen[-3:], heard[-3:], strict=True)) < 0.045
    assert seen[-1] - seen[-2] == pytest.approx(BEAT_S, abs=0.002)


@given(
    st.fractions(Fraction(1, 90_000), 10, max_denominator=90_000),
    st.integers(1, 90_000),
    st.fractions(-(10**6), 10**6, max_denominator=90_000),
    st.integers(-(10**7), 10**12),
)
def test_ticks_in_whole_numbers_are_the_nearest(base: Fraction, timescale: int, zero: Fraction, time: int) -> None:
    assert Ticks(base, timescale, zero).of(time) == round((time * base - zero) * timescale)
