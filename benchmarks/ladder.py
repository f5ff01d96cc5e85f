"""The ladder of a film against the ffmpeg command line at equal settings: time, likeness, bytes, memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import films
from benchmarks.processes import Peak
from benchmarks.report import Figure
from streamgate.media.model import LadderSettings, Limits, MediaPlan, VideoRung
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import FileSource

PAIRS = 5
LADDER = LadderSettings(rungs=(360, 480, 720, 1080), passthrough=False)
COMPARED = 600
"""Pictures of each rung that are compared with the source."""


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Wall time of ours over theirs, in alternating pairs; and what came out of the last one, rung by rung."""
    film, what = films.natural_minute(folder, given)
    return asyncio.run(_measure(folder / "ladder", film, what))


async def _measure(folder: Path, film: Path, what: str) -> list[Figure]:
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = [], []
    async with Sandbox.open(folder) as sandbox:
        plan = await sandbox.plan(FileSource(film), ladder=LADDER, limits=Limits())
        for pair in range(PAIRS):
            for mine in (True, False) if pair % 2 else (False, True):
                if mine:
                    ours.append(await _ours(sandbox, film, plan, plan.runs, folder))
                else:
                    theirs.append(await asyncio.to_thread(_theirs, film, plan, folder))
        compared = await asyncio.to_thread(_compared, folder, film, plan)
        # Looking takes time of its own, so that what is timed is not looked at.
        with Peak(os.getpid(), below=True) as peak:
            await _ours(sandbox, film, plan, plan.runs[:3], folder)
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    rungs = "+".join(str(rung) for rung in LADDER.rungs)
    how = f"{rungs}, {LADDER.preset}, equal threads, rates and key frames, alternating pairs; {what}"
    chunks = f"{len(plan.runs)} runs, one after the other, each a process of its own"
    return [
        Figure("ladder, ours over ffmpeg", ratios, "× wall", "≤ 1.0", how),
        Figure("ladder, ours", tuple(ours), "s", "–", chunks),
        Figure("ladder, ffmpeg", tuple(theirs), "s", "–", subprocess_version()),
        *compared,
        Figure("memory of an encoder", (peak.highest,), "MiB", "≤ 700 MB", "highest PSS, with the fork server"),
    ]


def _compared(folder: Path, film: Path, plan: MediaPlan) -> list[Figure]:
    """Bytes and likeness of each rung beside ffmpeg's: one value a rung."""
    sizes, likeness = [], []
    for place, name in enumerate(r.name for r in plan.renditions if r.kind == "video"):
        ours, theirs = folder / f"{name}.mp4", folder / f"ffmpeg-{place}.mp4"
        sizes.append(ours.stat().st_size / theirs.stat().st_size)
        likeness.append(_ssim(ours, film) - _ssim(theirs, film))
    note = "lowest rung first: " + ", ".join(f"{size:.3f}" for size in sizes)
    alike = "lowest rung first: " + ", ".join(f"{one:+.4f}" for one in likeness)
    return [
        Figure("bytes of a rung, ours over ffmpeg", tuple(sizes), "times", "within 3 %", note),
        Figure("SSIM of a rung, ours less ffmpeg's", tuple(likeness), "", "within 0.002", alike),
    ]


def _ssim(made: Path, film: Path) -> float:
    """Mean structural similarity (luma) of the first pictures to the source, scaled to the same size.

    Both are called BT.709: where one says nothing of its colours ffmpeg would convert the other before it compares them, which
    takes 0.002 off whichever says what it is.
    """
    same = "setpts=N,setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    pairs = f"[1:v]{same}[s];[0:v]{same}[m];[s][m]scale2ref=flags=bicubic[a][b];[a][b]ssim=stats_file=-"
    command = [films.ffmpeg(), "-v", "error", "-i", str(made), "-i", str(film), "-lavfi", pairs]
    command += ["-frames:v", str(COMPARED), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.fmean(float(value) for value in re.findall(r"Y:([\d.]+)", done.stdout))


async def _ours(sandbox: Sandbox, film: Path, plan: MediaPlan, runs: Sequence[tuple[int, int]], folder: Path) -> float:
    names = tuple(rendition.name for rendition in plan.renditions)
    for rendition in plan.renditions:
        (folder / f"{rendition.name}.mp4").write_bytes(rendition.init)
    began = time.monotonic()
    for run in runs:
        place = folder / "chunk"
        place.mkdir()
        made = await sandbox.encode(
            FileSource(film), plan, chunks=range(*run), renditions=names, folder=place, timeout_s=600, eager=False
        )
        for segment in made.segments:
            with (folder / f"{segment.rendition}.mp4").open("ab") as file:
                file.write((place / segment.file).read_bytes())
        shutil.rmtree(place)
    return time.monotonic() - began


def _theirs(film: Path, plan: MediaPlan, folder: Path) -> float:
    rungs = [rendition.rung for rendition in plan.renditions if isinstance(rendition.rung, VideoRung)]
    split = f"[0:v]split={len(rungs)}" + "".join(f"[s{i}]" for i in range(len(rungs)))
    scaled = [f"[s{i}]scale={rung.width}:{rung.height}[v{i}]" for i, rung in enumerate(rungs)]
    command = [films.ffmpeg(), "-v", "error", "-y", "-i", str(film), "-filter_complex", ";".join([split, *scaled])]
    for i, rung in enumerate(rungs):
        command += ["-map", f"[v{i}]", "-c:v", "libx264", "-preset", rung.preset, "-crf", f"{rung.crf:g}"]
        command += ["-maxrate", str(rung.maxrate), "-bufsize", str(rung.bufsize), "-profile:v", rung.profile]
        command += ["-threads", str(rung.threads), "-g", str(rung.gop), "-sc_threshold", "0"]
        command += ["-force_key_frames", f"expr:gte(t,n_forced*{LADDER.segment_s:g})"]
        command += ["-movflags", "empty_moov+frag_keyframe", "-f", "mp4", str(folder / f"ffmpeg-{i}.mp4")]
    command += ["-map", "0:a:0?", "-c:a", "aac", "-b:a", str(LADDER.audio_bitrate), "-ac", "2", "-f", "mp4"]
    command += [str(folder / "ffmpeg-a.mp4")]
    began = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began


def subprocess_version() -> str:
    """Which ffmpeg that was."""
    first = subprocess.run([films.ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout.split("\n")[
        0
    ]
    return json.dumps(" ".join(first.split()[:3]))[1:-1]
