"""Films to measure with: one that is given, or synthesised ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

from tests.support.natural import natural

SYNTHESISED = "synthesised (moving test picture with noise, sweep)"
LIKE_NATURE = "synthesised (textures with the spectrum of natural pictures, drifting, with grain)"


def ffmpeg() -> str:
    """A recent ffmpeg to compare with; the product itself needs none."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def minute(folder: Path, given: Path | None) -> tuple[Path, str]:
    """A film of 60 s in 1080p, and what it is."""
    if given is not None:
        return given, given.name
    path = folder / "minute.mp4"
    if not path.exists():
        picture = "testsrc2=s=1920x1080:r=30:d=60,noise=alls=6:allf=t,format=yuv420p"
        command = [
            ffmpeg(),
            "-v",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            picture,
            "-f",
            "lavfi",
            "-i",
            "sine=f=330:b=4:d=60:r=48000",
        ]
        command += [
            "-c:v",
            "libx264",
            "-preset",
            "superfast",
            "-crf",
            "20",
            "-g",
            "60",
            "-c:a",
            "aac",
            "-ac",
            "2",
            str(path),
        ]
        subprocess.run(command, check=True)
    return path, SYNTHESISED


def natural_minute(folder: Path, given: Path | None) -> tuple[Path, str]:
    """As `minute`, with pictures like those of a camera."""
    if given is not None:
        return given, given.name
    return _looped(folder / "natural.mp4", size=(1920, 1080), crf=18, parts=5), LIKE_NATURE


def nine_chunks(folder: Path, given: Path | None) -> tuple[Path, str]:
    """A film of 108 s in 720p with pictures like those of a camera: nine runs of twelve seconds."""
    if given is not None:
        return given, given.name
    return _looped(folder / "nine-chunks.mp4", size=(1280, 720), crf=20, parts=9), f"108 s in 720p, {LIKE_NATURE}"


def _looped(path: Path, *, size: tuple[int, int], crf: int, parts: int) -> Path:
    """The same twelve seconds of such pictures so many times."""
    if not path.exists():
        sound = ("-f", "lavfi", "-i", "sine=f=330:b=4:d=12:r=48000")
        coded = ("-c:v", "libx264", "-preset", "superfast", "-crf", str(crf), "-g", "60", "-c:a", "aac", "-ac", "2")
        part = path.with_name(f"{path.stem}-part.mp4")
        natural(part, seconds=12, size=size, rate=30, inputs=sound, coded=coded, ffmpeg=ffmpeg())
        loops = str(parts - 1)
        command = [ffmpeg(), "-v", "error", "-y", "-stream_loop", loops, "-i", str(part), "-c", "copy", str(path)]
        subprocess.run(command, check=True)
    return path


def ten_minutes(folder: Path, of: Path) -> Path:
    """The film ten times in a row, without encoding it anew."""
    path = folder / "ten-minutes.mp4"
    if not path.exists():
        command = [ffmpeg(), "-v", "error", "-y", "-stream_loop", "9", "-i", str(of), "-c", "copy", str(path)]
        subprocess.run(command, check=True)
    return path
