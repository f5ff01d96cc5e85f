"""Sounds in which a seam would be heard, as samples by channel, and how they are written and read."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_STEPS = (0, 3, 5, 7, 10, 12, 15)


def sweep(seconds: float, rate: int = 48_000, channels: int = 2) -> Any:
    """From 100 Hz to 8 kHz, exponentially; each further channel a little softer."""
    time = np.arange(int(seconds * rate)) / rate
    growth = np.log(80) / seconds
    wave = 0.4 * np.sin(2 * np.pi * 100 * (np.exp(growth * time) - 1) / growth)
    return np.stack([wave * (1 - 0.1 * channel) for channel in range(channels)], 1)


def music(seconds: float, rate: int = 48_000, channels: int = 2) -> Any:
    """Plucked chords of three tones with overtones, four a second, each with a click at its beginning and a place of its own."""
    draw = np.random.default_rng(3)
    count = int(seconds * rate)
    time = np.arange(count) / rate
    made = np.zeros((count, channels))
    click = np.exp(-np.arange(int(rate * 0.01)) / (rate * 0.003))
    for start in np.arange(0, seconds, 0.23):
        first = int(start * rate)
        since = time[: count - first]
        tones = 110 * 2 ** (draw.choice(_STEPS, 3) / 12)
        chord = sum(np.sin(2 * np.pi * tone * over * since) / over for tone in tones for over in (1, 2, 3, 5))
        struck = np.minimum(since / 0.003, 1) * np.exp(-since / 0.35)
        made[first:] += 0.06 / np.sqrt(channels / 2) * (chord * struck)[:, None] * draw.random(channels)
        noise = draw.normal(0, 0.1, (len(click), channels)) * click[:, None]
        made[first : first + len(click)] += noise[: count - first]
    return made


def write(path: Path, sound: Any, *coded: str, rate: int = 48_000, inputs: Sequence[str] = ()) -> Path:
    """A film with that sound (and what ``inputs`` adds), made by the ffmpeg command line."""
    channels = sound.shape[1]
    raw = ("-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-channel_layout", _LAYOUTS[channels], "-i", "-")
    command = ["ffmpeg", "-v", "error", "-y", *raw, *inputs, *coded, str(path)]
    subprocess.run(command, input=sound.astype("<f4").tobytes(), check=True)
    return path


def read(path: Path, rate: int = 48_000) -> Any:
    """The first sound of a file as ffmpeg decodes it, in two channels."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-ac", "2", "-ar", str(rate)]
    done = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4").reshape(-1, 2)
