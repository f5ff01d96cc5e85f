"""Films as a camera makes them, by numbers: textures with the spectrum of natural pictures that drift past each other, and grain.

Test patterns have edges and flat areas that no camera sees, and compress unlike anything that is uploaded. Pictures of
nature have power that falls with about the square of spatial frequency (Field 1987), move smoothly, and carry noise that
differs from picture to picture.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GRAINS = 8
"""Fields of noise that pictures are given in turn, each shifted by another amount."""


def natural(
    path: Path,
    *,
    seconds: float,
    size: tuple[int, int] = (320, 180),
    rate: str | int = 25,
    grain: float = 3.0,
    inputs: Sequence[str] = (),
    coded: Sequence[str] = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "16"),
    ffmpeg: str = "ffmpeg",
) -> Path:
    """A film of that size at that rate (as ffmpeg takes it: ``30000/1001``), encoded as asked.

    ``grain``: standard deviation of the noise in steps of 255. ``inputs``: further inputs, for example sound.
    """
    width, height = size
    above, _, below = str(rate).partition("/")
    count = round(seconds * int(above) / int(below or 1))
    command = [
        *(ffmpeg, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}"),
        *("-framerate", str(rate), "-i", "-", *inputs, "-pix_fmt", "yuv420p", *coded, str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for picture in _pictures(width, height, count, seconds / count, grain):
            process.stdin.write(picture)
        process.stdin.close()
        assert process.wait() == 0
    return path


def _pictures(width: int, height: int, count: int, step_s: float, grain: float) -> Iterator[bytes]:
    """Planes of yuv420p: a background and something before it, each drifting its own way; grain on luma."""
    draw = np.random.default_rng(7)
    behind = [_texture(draw, 2 * height // part, 2 * width // part, 40 // part**2) for part in (1, 2, 2)]
    before = [_texture(draw, height // 2 // part, width // 2 // part, 40 // part**2) for part in (1, 2, 2)]
    noise = draw.normal(0, grain, (GRAINS, height + 64, width + 64)).astype(np.float32)
    for number in range(count):
        time = number * step_s
        across, down = _drift(time, width // 2, height // 2, 7.0)
        left, top = _drift(time + 2, width // 4, height // 4, 3.0)
        planes = []
        for part, back, front in zip((1, 2, 2), behind, before, strict=True):
            rows, columns = height // part, width // part
            y, x = down // part, across // part
            plane = back[y : y + rows, x : x + columns].copy()
            plane[top // part :, left // part :][: front.shape[0], : front.shape[1]] = front
            planes.append(plane)
        y, x = draw.integers(0, 64, 2)
        planes[0] = planes[0] + noise[number % GRAINS, y : y + height, x : x + width]
        yield b"".join(plane.clip(16, 235).astype(np.uint8).tobytes() for plane in planes)


def _drift(time: float, width: int, height: int, period_s: float) -> tuple[int, int]:
    """A smooth path within (width, height)."""
    turn = 2 * np.pi * time / period_s
    return int((1 + np.sin(turn)) / 2 * width) // 2 * 2, int((1 + np.cos(turn * 0.6)) / 2 * height) // 2 * 2


def _texture(draw: np.random.Generator, height: int, width: int, contrast: float) -> Any:
    """Luma or chroma of random phases whose amplitude falls with spatial frequency."""
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None, :] * width
    frequency = np.maximum(1.0, np.hypot(down, across))
    waves = np.exp(2j * np.pi * draw.random(frequency.shape)) / frequency**1.2
    made = np.fft.irfft2(waves, (height, width))
    return (126 + contrast * made / made.std()).astype(np.float32)
