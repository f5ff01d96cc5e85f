"""The ladder of a film against the ffmpeg command line, with equal preset, threads, rates and key frames."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks import films
from benchmarks.report import Figure
from streamgate.media.model import LadderSettings, Limits, MediaPlan, VideoRung
from streamgate.media.sandbox import Sandbox
from tests.support.encoding import FileSource

PAIRS = 5
LADDER = LadderSettings(rungs=(360, 480, 720, 1080))


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Wall time of ours over theirs, in alternating pairs; and both."""
    film, what = films.minute(folder, given)
    return asyncio.run(_measure(folder / "ladder", film, what))


async def _measure(folder: Path, film: Path, what: str) -> list[Figure]:
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = [], []
    async with Sandbox.open(folder) as sandbox:
        plan = await sandbox.plan(FileSource(film), ladder=LADDER, limits=Limits())
        for pair in range(PAIRS):
            for mine in (True, False) if pair % 2 else (False, True):
                if mine:
                    ours.append(await _ours(sandbox, film, plan, folder))
                else:
                    theirs.append(await asyncio.to_thread(_theirs, film, plan, folder))
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    rungs = "+".join(str(rung) for rung in LADDER.rungs)
    return [
        Figure(
            "ladder, ours over ffmpeg", ratios, "× wall", "≤ 1.15", f"{rungs}, veryfast, equal threads and GOP; {what}"
        ),
        Figure(
            "ladder, ours", tuple(ours), "s", "–", f"{len(plan.chunks)} chunks, one after the other, each a process"
        ),
        Figure("ladder, ffmpeg", tuple(theirs), "s", "–", subprocess_version()),
    ]


async def _ours(sandbox: Sandbox, film: Path, plan: MediaPlan, folder: Path) -> float:
    names = tuple(rendition.name for rendition in plan.renditions)
    began = time.monotonic()
    for chunk in range(len(plan.chunks)):
        place = folder / "chunk"
        place.mkdir()
        await sandbox.encode(
            FileSource(film), plan, chunk=chunk, renditions=names, folder=place, timeout_s=600, eager=False
        )
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
