"""Sound that is encoded by chunks is heard as sound that is encoded in one go: no step, no noise, no shift where chunks meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import FileSource, encode_chunks
from tests.support.films import moving
from tests.support.music import music, read, sweep, write

SECONDS = 7
LADDER = LadderSettings(rungs=(120,), preset="ultrafast", segment_s=1, passthrough=True)
MOST_DB = 1.0
AROUND = (-1024, 2048)
"""Samples of a seam: the frames whose transforms overlap it."""

PICTURE = moving(SECONDS, "160x120")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
SOUNDS: dict[str, tuple[str, Any, int, int, tuple[str, ...]]] = {
    "a sweep": ("mkv", sweep, 48_000, 2, ("-c:a", "flac")),
    "music": ("mkv", music, 48_000, 2, ("-c:a", "flac")),
    "music at another rate": ("mkv", music, 96_000, 2, ("-c:a", "flac", "-sample_fmt", "s32")),
    "six channels of AC-3 beside video that passes through": ("mp4", music, 48_000, 6, (*X264, "-c:a", "ac3", "-b:a", "640k")),
    "MP3 beside video that passes through": ("mp4", music, 48_000, 2, (*X264, "-c:a", "libmp3lame", "-b:a", "320k")),
}  # fmt: skip


async def encoded(sandbox: Sandbox, source: Path, plan: MediaPlan, rendition: PlannedRendition, folder: Path) -> Path:
    """One rendition, run by run as the plan says."""
    found: dict[tuple[str, int], bytes] = {}
    for run in plan.runs:
        place = folder / f"{run[0]}"
        found |= await encode_chunks(sandbox, FileSource(source), plan, range(*run), (rendition.name,), place)
    path = folder / "made.mp4"
    path.write_bytes(rendition.init + b"".join(found[key] for key in sorted(found)))
    return path


def in_one_go(plan: MediaPlan) -> MediaPlan:
    """The same plan with one run."""
    return msgspec.structs.replace(plan, runs=((0, len(plan.chunks)),))


def decibels(wanted: Any, found: Any) -> float:
    """Signal to noise ratio."""
    return float(10 * np.log10((wanted**2).sum() / max(1e-9, ((found - wanted) ** 2).sum())))


@pytest.mark.parametrize("kind", SOUNDS)
async def test_nothing_is_heard_where_chunks_meet(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    container, sound, rate, channels, coded = SOUNDS[kind]
    inputs = PICTURE if X264[0] in coded else ()
    source = write(tmp_path / f"film.{container}", sound(SECONDS, rate, channels), *coded, rate=rate, inputs=inputs)
    plan = await sandbox.plan(FileSource(source), ladder=LADDER, limits=Limits())
    assert [r.passthrough for r in plan.renditions if r.kind == "video"] == ([0, None] if inputs else [])
    rendition = plan.renditions[-1]
    assert rendition.passthrough is None
    assert (rendition.kind, rendition.channels) == ("audio", 2)
    seams = [rendition.boundaries[first] for first, _ in plan.runs[1:]]
    assert len(seams) == 2

    chunked = read(await encoded(sandbox, source, plan, rendition, tmp_path / "chunks"))
    whole = read(await encoded(sandbox, source, in_one_go(plan), rendition, tmp_path / "whole"))
    wanted = read(source)
    assert len(chunked) == len(whole)
    for seam in seams:
        place = slice(seam + AROUND[0], seam + AROUND[1])
        near = slice(seam - SECONDS * 2000, seam + SECONDS * 2000)
        here, there = decibels(wanted[place], chunked[place]), decibels(wanted[place], whole[place])
        assert here >= there - MOST_DB
        # A few frames may be harder to encode than those around them, but no more so for being beside a seam.
        rest = decibels(wanted[near], chunked[near]), decibels(wanted[near], whole[near])
        assert here - rest[0] >= there - rest[1] - MOST_DB
        assert steps(wanted[place], chunked[place]) <= 1.1 * steps(wanted[place], whole[place]) + 1e-4


def steps(wanted: Any, found: Any) -> float:
    """The largest step from sample to sample that was not there before."""
    return float(np.abs(np.diff(found - wanted, axis=0)).max())


COARSE: dict[str, tuple[str, tuple[str, ...]]] = {
    "MP3 in Matroska": ("mkv", ("-c:a", "libmp3lame", "-b:a", "320k")),
    "Vorbis in WebM": ("webm", ("-c:a", "libvorbis", "-b:a", "192k")),
    "FLAC in Matroska": ("mkv", ("-c:a", "flac")),
}


@pytest.mark.parametrize("kind", COARSE)
async def test_timestamps_of_milliseconds_move_no_chunk_against_another(
    sandbox: Sandbox, tmp_path: Path, kind: str
) -> None:
    """A unit of such a clock is 44 samples: a chunk placed by one timestamp alone begins up to half of that too early or late."""
    container, coded = COARSE[kind]
    rate = 44_100
    source = write(tmp_path / f"film.{container}", music(SECONDS, rate), *coded, rate=rate)
    plan = await sandbox.plan(FileSource(source), ladder=LADDER, limits=Limits())
    rendition = plan.renditions[-1]
    found, wanted = read(await encoded(sandbox, source, plan, rendition, tmp_path / "out"), rate), read(source, rate)
    moved = []
    for first, end in plan.runs:
        place = slice(rendition.boundaries[first] + 4096, rendition.boundaries[end] - 4096)
        moved.append(shift(found[place, 0], wanted[place, 0]))
    assert max(moved) - min(moved) <= 1, moved
    assert max(map(abs, moved)) <= rate / 2000


def shift(found: Any, wanted: Any) -> int:
    """By how many samples one comes later than the other: where their correlation is greatest."""
    size = 2 * len(wanted)
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(wanted, size)))
    return (int(product.argmax()) + size // 2) % size - size // 2
