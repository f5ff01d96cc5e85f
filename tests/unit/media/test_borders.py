"""A film encoded by chunks is the film encoded in one go: the same pictures at the same times, as good beside borders."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from av.video.frame import PictureType

from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition, VideoRung
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import Encoded, FileSource, encode, encode_chunks
from tests.support.natural import natural

MOST = 0.003
"""Of structural similarity, by which pictures beside a border may differ from the single pass."""

MOST_WHERE_THE_PEAK_BINDS = 0.015
"""The same where the peak rate binds: a chunk does not know how full the encoder's buffer would be."""

BESIDE = 4
"""So many pictures on each side of a boundary count as beside it."""

LADDER = LadderSettings(rungs=(180,))
TIGHT = LadderSettings(rungs=(180,), rate_factor=0.5)
NEARLY_LOSSLESS = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "12")
UNEVEN = ("-vf", "setpts='(N+0.4*random(0))/30/TB'", "-fps_mode", "vfr", "-enc_time_base", "1/90000")
FILMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "25 pictures a second": ("25", ()),
    "29.97 pictures a second": ("30000/1001", ()),
    "60 pictures a second": ("60", ()),
    "uneven times": ("30", UNEVEN),
}


def shown(path: Path) -> list[float]:
    """When each picture is shown, in seconds, counted from the first one."""
    with av.open(str(path)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def likeness(path: Path, source: Path) -> Any:
    """Structural similarity of each picture to the source's, as ffmpeg's own filter finds it (luma)."""
    pairs = "[0:v]setpts=N[a];[1:v]setpts=N[b];[a][b]ssim=stats_file=-"
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-i", str(source), "-lavfi", pairs, "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return np.array([float(value) for value in re.findall(r"Y:([\d.]+)", done.stdout)])


async def in_one_go(sandbox: Sandbox, source: Path, made: Encoded, rendition: PlannedRendition, folder: Path) -> Path:
    """The rendition as one chunk."""
    whole = ((0, len(rendition.boundaries) - 1),)
    return await joined(sandbox, source, msgspec.structs.replace(made.plan, renditions=(rendition,)), whole, folder)


async def joined(
    sandbox: Sandbox, source: Path, planned: MediaPlan, chunks: tuple[tuple[int, int], ...], folder: Path
) -> Path:
    """The only rendition of a plan, encoded by these chunks."""
    (rendition,) = planned.renditions
    planned = msgspec.structs.replace(planned, chunks=chunks)
    data = rendition.init
    for chunk, (first, end) in enumerate(chunks):
        place = folder / f"{chunk}"
        found = await encode_chunks(
            sandbox, FileSource(source), planned, range(chunk, chunk + 1), (rendition.name,), place
        )
        data += b"".join(found[rendition.name, number] for number in range(first, end))
    path = folder / "joined.mp4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", FILMS)
async def test_chunks_are_the_single_pass(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    rate, coded = FILMS[kind]
    source = natural(tmp_path / "film.mp4", seconds=9, rate=rate, coded=(*coded, *NEARLY_LOSSLESS))
    made = await encode(sandbox, source, tmp_path / "chunks", ladder=LADDER)
    (rendition,) = made.video
    assert made.plan.runs == ((0, 1), (1, 3))
    chunked, whole = (
        made.files[rendition.name],
        await in_one_go(sandbox, source, made, rendition, tmp_path / "whole"),
    )

    times = shown(source)
    assert shown(chunked) == shown(whole)
    assert shown(chunked) == pytest.approx(times, abs=1.5 / rendition.timescale)
    types = by_type(chunked)
    assert types["I"] == 3
    assert types["B"] > len(times) / 3

    lost = likeness(whole, source) - likeness(chunked, source)
    assert len(lost) == len(times)
    border, middle = (
        float(lost[place - BESIDE : place + BESIDE].mean())
        for place in (nearest(times, rendition.boundaries[number] / rendition.timescale) for number in (1, 2))
    )
    assert abs(border) <= MOST
    assert abs(border - middle) <= MOST
    assert abs(float(lost.mean())) <= MOST / 3


async def test_where_the_peak_rate_binds_a_chunk_begins_nearly_as_well(sandbox: Sandbox, tmp_path: Path) -> None:
    """With one thread, so that x264 decides alike each time: with several it does not where the peak binds."""
    source = natural(tmp_path / "film.mp4", seconds=9, coded=(*NEARLY_LOSSLESS, "-threads", "1"))
    planned = await sandbox.plan(FileSource(source), ladder=TIGHT, limits=Limits())
    (rendition,) = planned.renditions
    assert isinstance(rendition.rung, VideoRung)
    planned_rate = rendition.rung.maxrate
    rendition = msgspec.structs.replace(rendition, rung=msgspec.structs.replace(rendition.rung, threads=1))
    planned = msgspec.structs.replace(planned, renditions=(rendition,))
    all_of_it = ((0, len(rendition.boundaries) - 1),)
    chunked = await joined(sandbox, source, planned, planned.runs, tmp_path / "chunks")
    whole = await joined(sandbox, source, planned, all_of_it, tmp_path / "whole")
    seconds = rendition.boundaries[-1] / rendition.timescale
    assert whole.stat().st_size * 8 / seconds > planned_rate
    border = nearest(shown(source), rendition.boundaries[1] / rendition.timescale)
    lost = likeness(whole, source) - likeness(chunked, source)
    assert abs(float(lost[border - BESIDE : border + BESIDE].mean())) <= MOST_WHERE_THE_PEAK_BINDS
    assert abs(float(lost[border : border + BESIDE].mean())) <= MOST_WHERE_THE_PEAK_BINDS
    assert abs(float(lost.mean())) <= MOST
    assert chunked.stat().st_size == pytest.approx(whole.stat().st_size, rel=0.03)


def nearest(times: list[float], time: float) -> int:
    return int(np.abs(np.array(times) - time).argmin())


def by_type(path: Path) -> dict[str, int]:
    """How many pictures of each type there are."""
    with av.open(str(path)) as container:
        types = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    return {name: types.count(name) for name in "IPB"}
