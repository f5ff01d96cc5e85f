"""Films made for the tests, by PyAV (small, exact, each made once per run) or by the ffmpeg command line."""

from __future__ import annotations

import hashlib
import math
import struct
import subprocess
from array import array
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

RATE = 48_000
BEAT_S = 2.0
"""A flash and a beep begin together every so many seconds, and last a tenth of a second."""


@dataclass(frozen=True)
class Recipe:
    """What a film is like. ``jitter``: frame times that are not even; ``rotation``: degrees clockwise the player must turn it."""

    seconds: float
    width: int
    height: int
    fps: int
    audio: str | None
    video: bool
    container: str
    b_frames: int
    rotation: int
    jitter: bool
    codec: str
    beats: bool


def film(
    folder: Path,
    *,
    seconds: float = 6,
    width: int = 640,
    height: int = 360,
    fps: int = 30,
    audio: str | None = "stereo",
    video: bool = True,
    container: str = "mp4",
    b_frames: int = 2,
    rotation: int = 0,
    jitter: bool = False,
    codec: str = "libx264",
    beats: bool = False,
) -> Path:
    """A film as described, in ``folder``; the same description gives the same file."""
    recipe = Recipe(seconds, width, height, fps, audio, video, container, b_frames, rotation, jitter, codec, beats)
    mark = hashlib.sha256(repr(astuple(recipe)).encode()).hexdigest()[:12]
    path = folder / f"film-{mark}.{container}"
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        _make(partial, recipe)
        partial.rename(path)
    return path


def frame_count(path: Path) -> int:
    """Pictures in the file's video track, counted by decoding."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _make(path: Path, recipe: Recipe) -> None:
    with av.open(str(path), "w") as container:
        picture = _video_stream(container, recipe) if recipe.video else None
        sound = _audio_stream(container, recipe) if recipe.audio else None
        samples = 0
        for number in range(round(recipe.seconds * recipe.fps) if picture is not None else 0):
            time = Fraction(number, recipe.fps)
            frame = _picture(recipe, number)
            frame.pts = _ticks(recipe, number)
            frame.time_base = picture.codec_context.time_base
            for packet in picture.encode(frame):
                container.mux(packet)
            if sound is not None:
                samples = _sound_until(container, sound, recipe, samples, float(time))
        if sound is not None:
            _sound_until(container, sound, recipe, samples, recipe.seconds)
        for stream in (picture, sound):
            if stream is not None:
                for packet in stream.encode(None):
                    container.mux(packet)
    if recipe.rotation:
        _rotate(path, recipe.rotation)


def _video_stream(container: Any, recipe: Recipe) -> Any:
    stream = container.add_stream(recipe.codec, rate=recipe.fps)
    stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000 if recipe.jitter else recipe.fps * 512)
    if recipe.codec == "libx264":
        stream.options = {"preset": "ultrafast", "bf": str(recipe.b_frames), "g": str(recipe.fps * 2), "b-adapt": "0"}
    return stream


def _audio_stream(container: Any, recipe: Recipe) -> Any:
    stream = container.add_stream("aac", rate=RATE)
    stream.codec_context.layout = "mono" if recipe.audio == "mono" else "stereo"
    stream.codec_context.bit_rate = 128_000
    return stream


def _ticks(recipe: Recipe, number: int) -> int:
    if not recipe.jitter:
        return number * 512
    # Even frames on time, odd ones up to a third of a frame late.
    late = (number * 7919 % 11) / 33 if number % 2 else 0
    return round((number + late) * 1000 / recipe.fps)


def _picture(recipe: Recipe, number: int) -> VideoFrame:
    """A moving gradient with a white marker in the upper left corner; a film with beats flashes instead."""
    width, height = recipe.width, recipe.height
    frame = VideoFrame(width, height, "yuv420p")
    if recipe.beats:
        light = 235 if (number / recipe.fps) % BEAT_S < 0.1 else 16
        rows = bytes([light]) * width
        plane = [rows] * height
    else:
        ramp = bytes(40 + (x + 3 * number) % 160 for x in range(width + 160))
        plane = [ramp[(y + number) % 160 : (y + number) % 160 + width] for y in range(height)]
        mark = b"\xeb" * (width // 8)
        plane[: height // 8] = [mark + row[width // 8 :] for row in plane[: height // 8]]
    _fill(frame.planes[0], plane)
    for chroma in (1, 2):
        other = frame.planes[chroma]
        _fill(other, [bytes([128]) * other.width] * other.height)
    return frame


def _fill(plane: Any, rows: list[bytes]) -> None:
    padding = bytes(plane.line_size - len(rows[0]))
    plane.update(b"".join(row + padding for row in rows))


def _sound_until(container: Any, stream: Any, recipe: Recipe, samples: int, seconds: float) -> int:
    """Encode sound up to a time; how many samples there are then."""
    channels = 1 if recipe.audio == "mono" else 2
    while samples < round(seconds * RATE):
        values = array("h")
        for at in range(samples, samples + 1024):
            value = round(12_000 * _wave(recipe, at))
            values.extend([value] * channels)
        frame = AudioFrame(format="s16", layout="mono" if channels == 1 else "stereo", samples=1024)
        frame.planes[0].update(values.tobytes())
        frame.sample_rate, frame.pts, frame.time_base = RATE, samples, Fraction(1, RATE)
        for packet in stream.encode(frame):
            container.mux(packet)
        samples += 1024
    return samples


def _wave(recipe: Recipe, at: int) -> float:
    time = at / RATE
    if recipe.beats:
        return math.sin(2 * math.pi * 1000 * time) if time % BEAT_S < 0.1 else 0.0
    # A slow sweep, so that a seam would be heard (and seen).
    return 0.7 * math.sin(2 * math.pi * (300 * time + 40 * time * time))


def _rotate(path: Path, degrees: int) -> None:
    """Write a display matrix into the picture's track header (ISO/IEC 14496-12 section 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd")
    assert at > 0, "no track header"
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    struct.pack_into(">9i", data, at + 4 + 4 + 36, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def by_ffmpeg(folder: Path, name: str, *arguments: str) -> Path:
    """A film made by the ffmpeg command line: a muxer and encoders that are not ours. ``name`` says the container."""
    path = folder / name
    command = ["ffmpeg", "-v", "error", "-y", *arguments, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def moving(seconds: float = 3, size: str = "320x180", rate: int | str = 25) -> tuple[str, ...]:
    """The input of `by_ffmpeg` that is a test pattern."""
    return ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}")


def tone(seconds: float = 3, frequency: int = 440) -> tuple[str, ...]:
    """The input of `by_ffmpeg` that is a tone."""
    return ("-f", "lavfi", "-i", f"sine=frequency={frequency}:sample_rate=48000:duration={seconds}")


def flashes(seconds: float = 5) -> tuple[str, ...]:
    """The input of `by_ffmpeg` that is black and flashes on every beat."""
    flash = f"drawbox=color=white:t=fill:enable='lt(mod(t,{BEAT_S:g}),0.1)'"
    return ("-f", "lavfi", "-i", f"color=black:size=160x120:rate=25:duration={seconds},{flash}")


def beeps(seconds: float = 5) -> tuple[str, ...]:
    """The input of `by_ffmpeg` that beeps on every beat."""
    beep = f"if(lt(mod(t,{BEAT_S:g}),0.1),sin(2*PI*1000*t),0)"
    return ("-f", "lavfi", "-i", f"aevalsrc='{beep}':sample_rate=48000:duration={seconds}")
