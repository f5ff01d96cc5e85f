"""Synthesised films (placeholder while the real module is written)."""

from __future__ import annotations

import subprocess
from pathlib import Path


def film(
    folder: Path,
    *,
    seconds: float = 6,
    width: int = 640,
    height: int = 360,
    fps: int = 30,
    audio: str | None = "stereo",
) -> Path:
    p = folder / f"film-{seconds}-{width}x{height}-{fps}-{audio}.mp4"
    cmd = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s={width}x{height}:r={fps}:d={seconds}"]
    if audio:
        cmd += ["-f", "lavfi", "-i", f"sine=f=440:d={seconds}:r=48000"]
    cmd += [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "60",
        "-c:a",
        "aac",
        "-shortest",
        str(p),
    ]
    subprocess.run(cmd, check=True)
    return p
