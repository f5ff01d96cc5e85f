"""Films of every kind that people have: each plays, picture by picture as another decoder sees it, or says what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from streamgate.media.model import LadderSettings, Limits
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import FileSource, encode, plan
from tools.corpus import examine, pictures

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=3")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=3")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
HLG = ("-color_primaries", "bt2020", "-color_trc", "arib-std-b67", "-colorspace", "bt2020nc")

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "HEVC in MP4": ("mp4", (*PICTURE, *SOUND, "-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-c:a", "aac")),
    "HEVC of ten bits": ("mkv", (*PICTURE, "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le")),
    "VP9 in WebM": ("webm", (*PICTURE, *SOUND, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")),
    "VP8 in WebM": ("webm", (*PICTURE, *SOUND, "-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis")),
    "AV1 in Matroska": ("mkv", (*PICTURE, "-c:v", "libsvtav1", "-preset", "12")),
    "MPEG-4 in AVI": ("avi", (*PICTURE, *SOUND, "-c:v", "mpeg4", "-bf", "2", "-q:v", "3", "-c:a", "libmp3lame")),
    "MPEG-2 in a transport stream": ("ts", (*PICTURE, *SOUND, "-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-c:a", "mp2")),
    "H.264 in a transport stream": ("ts", (*PICTURE, *SOUND, *X264, "-bf", "2", "-c:a", "aac")),
    "H.264 in FLV": ("flv", (*PICTURE, *SOUND, *X264, "-c:a", "aac")),
    "Sorenson in FLV": ("flv", (*PICTURE, "-c:v", "flv", "-q:v", "3")),
    "ProRes in MOV": ("mov", (*PICTURE, *SOUND, "-c:v", "prores_ks", "-c:a", "pcm_s24le")),
    "4:2:2": ("mkv", (*PICTURE, *X264[:4], "-pix_fmt", "yuv422p")),
    "4:4:4": ("mkv", (*PICTURE, *X264[:4], "-pix_fmt", "yuv444p")),
    "full range": ("mp4", (*PICTURE, "-vf", "scale=out_range=full", *X264[:4], "-pix_fmt", "yuvj420p")),
    "FFV1": ("mkv", (*PICTURE, *SOUND, "-c:v", "ffv1", "-c:a", "flac")),
    "MJPEG": ("avi", (*PICTURE, "-c:v", "mjpeg", "-q:v", "3")),
    "times that are not even": (
        "mkv",
        (*PICTURE, "-vf", "select='not(mod(n,3))+not(mod(n,5))'", "-fps_mode", "vfr", *X264),
    ),
    "a start that is not zero": ("ts", (*PICTURE, *SOUND, *X264, "-c:a", "aac", "-output_ts_offset", "4000")),
    "fragments": ("mp4", (*PICTURE, *SOUND, *X264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov")),
    "six channels": ("mkv", (*PICTURE, *SOUND, *X264, "-ac", "6", "-c:a", "ac3")),
    "cover art": (
        "mp4",
        (*PICTURE, *SOUND, "-f", "lavfi", "-i", "color=red:size=64x64:duration=0.04",
         "-map", "0", "-map", "1", "-map", "2", *X264, "-c:v:1", "mjpeg", "-disposition:v:1", "attached_pic", "-c:a", "aac"),
    ),
}  # fmt: skip


def made(folder: Path, name: str, container: str, arguments: tuple[str, ...]) -> Path:
    path = folder / f"{name.replace(' ', '-').replace(':', '')}.{container}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("kind", KINDS)
async def test_a_film_of_this_kind_plays(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind, *KINDS[kind])
    (tmp_path / "out").mkdir()
    row = await examine(sandbox, path, tmp_path / "out")
    assert (row.outcome, row.detail) == ("plays", ""), row


async def test_interlaced_pictures_become_whole_ones(sandbox: Sandbox, tmp_path: Path) -> None:
    """A bar that moves fast would show a comb where two fields are woven together."""
    still = "size={}:rate=50:duration=2"
    bar = f"color=black:{still.format('320x240')}[b];color=white:{still.format('40x240')}[w];[b][w]overlay=x='mod(n*8,320)':y=0"
    arguments = (
        "-f",
        "lavfi",
        "-i",
        bar,
        "-vf",
        "tinterlace=interleave_top",
        "-flags",
        "+ilme+ildct",
        "-c:v",
        "mpeg2video",
        "-q:v",
        "2",
    )
    path = made(tmp_path, "interlaced", "ts", arguments)
    done = await encode(sandbox, path, tmp_path / "out", ladder=LadderSettings(rungs=(240,), crf=10, rate_factor=8))
    ours, woven = pictures(done.files["240p"], 320, 240), pictures(path, 320, 240)

    def comb(pictures: np.ndarray) -> float:
        rows = pictures.astype(int)
        return float(np.abs(rows[:, 1:-1:2] - (rows[:, 0:-2:2] + rows[:, 2::2]) / 2).mean())

    assert comb(woven) > 5
    assert comb(ours) < comb(woven) / 4


async def test_high_dynamic_range_is_shown_in_standard_range(sandbox: Sandbox, tmp_path: Path) -> None:
    arguments = (*PICTURE, "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", *HLG)
    path = made(
        tmp_path,
        "hlg",
        "mp4",
        (*arguments, "-x265-params", "log-level=error:transfer=arib-std-b67:colorprim=bt2020:colormatrix=bt2020nc"),
    )
    done = await encode(sandbox, path, tmp_path / "out", ladder=LadderSettings(rungs=(180,)))
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=pix_fmt,color_transfer,color_primaries,color_space", "-of", "csv=p=0",
         str(done.files["180p"])],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert told == "yuv420p,bt709,bt709,bt709"


@pytest.mark.parametrize(
    ("container", "part"), [("mkv", 0.5), ("ts", 0.5), ("webm", 0.6), ("avi", 0.7), ("flv", 0.5), ("mp4", 0.6)]
)
async def test_what_is_there_of_a_film_cut_short_is_played(
    sandbox: Sandbox, tmp_path: Path, container: str, part: float
) -> None:
    codecs = {"webm": ("-c:v", "libvpx", "-deadline", "realtime"), "avi": ("-c:v", "mpeg4")}.get(container, X264)
    more = ("-movflags", "+faststart") if container == "mp4" else ()
    whole = made(tmp_path, "whole", container, (*PICTURE, *SOUND, *codecs, *more))
    path = tmp_path / f"cut.{container}"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    (tmp_path / "out").mkdir()
    row = await examine(sandbox, path, tmp_path / "out")
    assert row.outcome in {"plays", "differs"}, row
    shown = int(row.pictures.split("/")[0])
    assert 15 < shown <= 75


async def test_an_index_that_is_missing_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    from streamgate.domain.asset import FailureCode, MediaRefused

    whole = made(tmp_path, "whole", "mp4", (*PICTURE, *X264))
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(MediaRefused) as refused:
        await sandbox.plan(FileSource(path), ladder=LadderSettings(), limits=Limits())
    assert refused.value.failure.code is FailureCode.TRUNCATED_MEDIA


async def test_a_film_cut_short_carries_a_warning(sandbox: Sandbox, tmp_path: Path) -> None:
    whole = made(tmp_path, "whole", "mp4", (*PICTURE, *SOUND, *X264, "-movflags", "+faststart"))
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    found = await plan(sandbox, path)
    assert [warning.code for warning in found.warnings] == ["damaged"]
