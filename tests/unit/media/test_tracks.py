"""Which tracks become renditions, and what becomes of channels, languages, covers, and of tracks that hold nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamgate.media.model import LadderSettings
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import encode, plan
from tests.support.films import by_ffmpeg, frame_count, moving, tone

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
SMALL = LadderSettings(rungs=(120,), preset="ultrafast")
COVER = ("-f", "lavfi", "-i", "color=red:size=64x64:duration=0.04")
CHANNELS = ("FL", "FR", "FC", "LFE", "BL", "BR")


def loudness(path: Path, frequency: int) -> list[float]:
    """How loud a tone is in each channel (root mean square over the middle of the film)."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-"]
    data = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    channels = int(subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=channels", "-of", "csv=p=0", str(path)],
        capture_output=True, text=True, check=True,
    ).stdout)  # fmt: skip
    samples = np.frombuffer(data, np.float32).reshape(-1, channels)[24_000:72_000]
    wave = np.exp(-2j * np.pi * frequency * np.arange(len(samples)) / 48_000)
    return [float(abs((samples[:, channel] * wave).mean()) * 2) for channel in range(channels)]


@pytest.mark.parametrize(("container", "codec"), [("mkv", "ac3"), ("mkv", "flac"), ("mp4", "aac"), ("ts", "eac3")])
async def test_six_channels_are_heard_in_two(sandbox: Sandbox, tmp_path: Path, container: str, codec: str) -> None:
    """ITU-R BS.775: the front stays on its side, the centre is in both, the surround on its side; nothing is lost or too loud."""
    tones = "|".join(f"0.25*sin(2*PI*{400 + 200 * place}*t)" for place in range(6))
    sound = ("-f", "lavfi", "-i", f"aevalsrc='{tones}':channel_layout=5.1:sample_rate=48000:duration=2")
    path = by_ffmpeg(tmp_path, f"film.{container}", *sound, "-c:a", codec, "-b:a", "640k")
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    file = made.files["audio-1"]
    heard = {name: loudness(file, 400 + 200 * place) for place, name in enumerate(CHANNELS)}
    assert heard["FL"][0] > 10 * heard["FL"][1]
    assert heard["FR"][1] > 10 * heard["FR"][0]
    assert heard["FC"][0] == pytest.approx(heard["FC"][1], rel=0.05)
    assert heard["FC"][0] / heard["FL"][0] == pytest.approx(2**-0.5, rel=0.1)
    assert heard["BL"][0] / heard["FL"][0] == pytest.approx(2**-0.5, rel=0.1)
    assert heard["BR"][1] / heard["FR"][1] == pytest.approx(2**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [
        ("pcm_s24le", "mov", 96_000),
        ("flac", "mkv", 192_000),
        ("pcm_mulaw", "mov", 8_000),
        ("libmp3lame", "mp3", 22_050),
    ],
)
async def test_a_tone_keeps_its_pitch_and_loudness_at_any_rate(
    sandbox: Sandbox, tmp_path: Path, codec: str, container: str, rate: int
) -> None:
    path = by_ffmpeg(tmp_path, f"film.{container}", *tone(2), "-c:a", codec, "-ar", str(rate), "-ac", "1")
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert made.audio[-1].channels == 1
    plain = tmp_path / "plain.wav"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(made.files["audio-1"]), "-ar", "48000", str(plain)], check=True)
    (heard,) = loudness(plain, 440)
    assert heard == pytest.approx(0.125, rel=0.06)  # LAME takes a twentieth off


async def test_every_language_is_a_rendition_and_one_is_the_default(sandbox: Sandbox, tmp_path: Path) -> None:
    path = by_ffmpeg(
        tmp_path, "film.mkv", *moving(), *tone(3, 440), *tone(3, 880), *tone(3, 1320),
        "-map", "0", "-map", "1", "-map", "2", "-map", "3", *X264, "-c:a", "aac",
        "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:a:2", "language=jpn",
        "-disposition:a:0", "0", "-disposition:a:1", "default", "-disposition:a:2", "0", "-metadata:s:a:2", "title=Commentary",
    )  # fmt: skip
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    found = [(r.language, r.label, r.default, r.track) for r in made.audio]
    assert found == [("en", None, False, 1), ("de", None, True, 2), ("ja", "Commentary", False, 3)]
    for rendition, frequency in zip(made.audio, (440, 880, 1320), strict=True):
        assert loudness(made.files[rendition.name], frequency)[0] > 0.1


CONTENT: dict[str, tuple[str, tuple[str, ...], int, int]] = {
    "a cover in an MP4": (
        "mp4",
        (*moving(), *tone(), *COVER, "-map", "0", "-map", "1", "-map", "2", *X264, "-c:v:1", "mjpeg",
         "-disposition:v:1", "attached_pic", "-c:a", "aac"),
        1, 1,
    ),
    "a cover before the film": (
        "mp4",
        (*COVER, *moving(), "-map", "0", "-map", "1", *X264, "-c:v:0", "mjpeg", "-disposition:v:0", "attached_pic"),
        1, 0,
    ),
    "a cover on sound alone": (
        "mp3",
        (*tone(), *COVER, "-map", "0", "-map", "1", "-c:a", "libmp3lame", "-c:v", "mjpeg", "-disposition:v", "attached_pic"),
        0, 2,
    ),
    "a timecode track": ("mov", (*moving(), *tone(), *X264, "-c:a", "aac", "-timecode", "01:00:00:00"), 1, 1),
    "no sound in the sound track": ("mp4", (*moving(), *tone(), *X264, "-c:a", "aac", "-af", "atrim=0:0"), 1, 0),
    "no picture in the picture track": ("mp4", (*moving(), *tone(), *X264, "-c:a", "aac", "-vf", "trim=0:0"), 0, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTENT)
async def test_what_is_neither_film_nor_sound_is_left_out(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    container, arguments, video, audio = CONTENT[kind]
    made = await encode(sandbox, by_ffmpeg(tmp_path, f"film.{container}", *arguments), tmp_path / "out", ladder=SMALL)
    assert (len(made.video), len(made.audio)) == (video, audio)
    for rendition in made.video:
        assert frame_count(made.files[rendition.name]) == 75


async def test_an_attachment_is_no_track(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"x" * 5000)
    attached = ("-attach", str(tmp_path / "font.ttf"), "-metadata:s:t", "mimetype=application/x-truetype-font")
    made = await plan(sandbox, by_ffmpeg(tmp_path, "film.mkv", *moving(), *X264, *attached), SMALL)
    assert [r.name for r in made.renditions] == ["120p"]
    assert made.warnings == ()


async def test_a_second_picture_track_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    two = (*moving(), *moving(3, "160x120"), "-map", "0", "-map", "1", *X264)
    made = await plan(sandbox, by_ffmpeg(tmp_path, "film.ts", *two), SMALL)
    assert [warning.code for warning in made.warnings] == ["track_left_out"]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi", "flv", "gif", "webm"])
async def test_one_picture_is_a_film(sandbox: Sandbox, tmp_path: Path, container: str) -> None:
    codec = {"avi": ("-c:v", "mpeg4"), "flv": ("-c:v", "flv"), "gif": (), "webm": ("-c:v", "libvpx")}.get(
        container, X264
    )
    path = by_ffmpeg(tmp_path, f"film.{container}", *moving(1), "-frames:v", "1", *codec)
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert frame_count(made.files["120p"]) == 1
    assert 0 < made.plan.duration < 1.1


async def test_a_gif_moves(sandbox: Sandbox, tmp_path: Path) -> None:
    made = await encode(sandbox, by_ffmpeg(tmp_path, "film.gif", *moving(2, rate=10)), tmp_path / "out", ladder=SMALL)
    assert frame_count(made.files["120p"]) == 20
    assert made.plan.duration == pytest.approx(2)


@pytest.mark.parametrize("container", ["ts", "mkv"])
async def test_a_film_that_changes_its_size_keeps_one_size(sandbox: Sandbox, tmp_path: Path, container: str) -> None:
    parts = [
        by_ffmpeg(
            tmp_path,
            f"{place}.ts",
            *moving(2, size),
            *tone(2),
            *X264,
            "-c:a",
            "aac",
            "-output_ts_offset",
            str(2 * place),
        )
        for place, size in enumerate(("320x180", "480x270", "160x90"))
    ]
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    if container != "ts":
        path = by_ffmpeg(tmp_path, f"film.{container}", "-i", str(path), "-c", "copy")
    made = await encode(sandbox, path, tmp_path / "out", ladder=SMALL)
    assert (made.plan.width, made.plan.height) == (320, 180)
    assert frame_count(made.files["120p"]) == 150
    assert made.plan.duration == pytest.approx(6, abs=0.05)
