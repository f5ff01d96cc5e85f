"""Colours are those of the source, whatever matrix, range, depth and sampling it comes in: eight bars of known colour."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamgate.media.model import LadderSettings
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import encode
from tests.support.films import by_ffmpeg

BARS = [
    (255, 255, 255),
    (191, 191, 0),
    (0, 191, 191),
    (0, 191, 0),
    (191, 0, 191),
    (191, 0, 0),
    (0, 0, 191),
    (16, 16, 16),
]
X264 = ("-c:v", "libx264", "-qp", "4", "-preset", "ultrafast")
X265 = ("-c:v", "libx265", "-preset", "ultrafast")
QUIET = "log-level=error:qp=4"
NITS = (0, 1, 5, 20, 50, 100, 203, 400, 1000)


def given(matrix: str, full: bool = False) -> tuple[str, ...]:
    return ("-vf", f"scale=out_color_matrix={matrix}:out_range={'full' if full else 'limited'}:flags=accurate_rnd")


KINDS: dict[str, tuple[tuple[int, int], str, tuple[str, ...]]] = {
    "BT.601 unsaid": ((320, 180), "mp4", (*given("bt601"), *X264, "-pix_fmt", "yuv420p")),
    "BT.709 in a small picture": ((320, 180), "mp4", (*given("bt709"), *X264, "-pix_fmt", "yuv420p", "-colorspace", "bt709")),
    "BT.709 unsaid in a large one": ((1280, 720), "mp4", (*given("bt709"), *X264, "-pix_fmt", "yuv420p")),
    "full range": ((320, 180), "mp4", (*given("bt601", True), *X264, "-pix_fmt", "yuvj420p")),
    "BT.2020 of ten bits": ((320, 180), "mkv", (*given("bt2020"), *X264, "-pix_fmt", "yuv420p10le", "-colorspace", "bt2020nc")),
    "4:2:2": ((320, 180), "mkv", (*given("bt601"), *X264, "-pix_fmt", "yuv422p")),
    "4:4:4 of ten bits": ((320, 180), "mkv", (*given("bt601"), *X264, "-pix_fmt", "yuv444p10le")),
    "4:1:1": ((320, 180), "mkv", (*given("bt601"), "-c:v", "ffv1", "-pix_fmt", "yuv411p")),
    "4:2:2 of twelve bits": ((320, 180), "mkv", (*given("bt601"), *X265, "-x265-params", QUIET, "-pix_fmt", "yuv422p12le")),
    "RGB": ((320, 180), "mkv", ("-c:v", "libx264rgb", "-qp", "4", "-preset", "ultrafast")),
    "RGB with transparency": ((320, 180), "mov", ("-c:v", "qtrle", "-pix_fmt", "argb")),
    "RGB of sixteen bits": ((320, 180), "mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrp16le")),
    "a palette": ((320, 180), "mov", ("-c:v", "png", "-pix_fmt", "pal8")),
    "MJPEG": ((320, 180), "avi", ("-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj420p")),
}  # fmt: skip


def bars(folder: Path, width: int, height: int) -> tuple[str, ...]:
    picture = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(BARS):
        picture[:, place * width // len(BARS) : (place + 1) * width // len(BARS)] = colour
    (folder / "bars.rgb").write_bytes(picture.tobytes() * 4)
    return (
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        "10",
        "-i",
        str(folder / "bars.rgb"),
    )


def decoded(path: Path, width: int, height: int, convert: str) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-vf", convert, "-f", "rawvideo", "-"]
    data = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    return np.frombuffer(data, np.uint8).reshape(height, width, -1).astype(int)


def fine(short: int) -> LadderSettings:
    return LadderSettings(rungs=(short,), preset="ultrafast", crf=4, rate_factor=20)


@pytest.mark.parametrize("kind", KINDS)
async def test_bars_keep_their_colours(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    (width, height), container, arguments = KINDS[kind]
    path = by_ffmpeg(tmp_path, f"film.{container}", *bars(tmp_path, width, height), *arguments)
    made = await encode(sandbox, path, tmp_path / "out", ladder=fine(height))
    # As every player takes what says BT.709, limited range.
    shown = "scale=in_color_matrix=bt709:in_range=limited:flags=accurate_rnd+full_chroma_int,format=rgb24"
    picture = decoded(made.files[f"{height}p"], width, height, shown)
    for place, colour in enumerate(BARS):
        middle = (2 * place + 1) * width // (2 * len(BARS))
        found = picture[height // 4 : height // 2, middle - 4 : middle + 4].reshape(-1, 3).mean(0)
        assert np.abs(found - colour).max() < 7, f"bar {place}: {found}, not {colour}"


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: the signal for a luminance in cd/m²."""
    y = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    """ARIB STD-B67 on a display of 1000 cd/m² (system gamma 1.2)."""
    scene = (nits / 1000) ** (1 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


@pytest.mark.parametrize(("transfer", "signal"), [("smpte2084", pq), ("arib-std-b67", hlg)], ids=["PQ", "HLG"])
async def test_high_dynamic_range_keeps_what_is_below_white(
    sandbox: Sandbox, tmp_path: Path, transfer: str, signal: object
) -> None:
    """Grey steps: diffuse white (203 cd/m², ITU-R BT.2408) and what is brighter become white; what is darker keeps its light."""
    assert callable(signal)
    width, height = len(NITS) * 32, 96
    row = np.round(64 + 876 * signal(np.repeat(NITS, 32).astype(float))).astype("<u2")
    grey = np.full((height // 2, width // 2), 512, "<u2").tobytes()
    (tmp_path / "steps.yuv").write_bytes((np.tile(row, (height, 1)).tobytes() + grey * 2) * 3)
    raw = (
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p10le",
        "-s",
        f"{width}x{height}",
        "-r",
        "10",
        "-i",
        str(tmp_path / "steps.yuv"),
    )
    said = ("-color_trc", transfer, "-color_primaries", "bt2020", "-colorspace", "bt2020nc")
    params = f"log-level=error:qp=2:transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"
    path = by_ffmpeg(tmp_path, "film.mp4", *raw, *X265, "-x265-params", params, *said)
    made = await encode(sandbox, path, tmp_path / "out", ladder=fine(height))
    picture = decoded(made.files[f"{height}p"], width, height, "scale=in_range=limited:out_range=full,format=gray")[
        ..., 0
    ]
    found = [float(picture[40:50, place * 32 + 8 : place * 32 + 24].mean()) / 255 for place in range(len(NITS))]
    # ITU-R BT.1886: what a display of gamma 2.4 needs for that share of white.
    wanted = [min(1.0, nits / 203) ** (1 / 2.4) for nits in NITS]
    assert found == pytest.approx(wanted, abs=0.06)
