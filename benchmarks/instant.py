"""Sample indexes of films of 1, 60 and 180 minutes: time to make them, size, memory, and how fast segments come out; then the same
over HTTP (`benchmarks.playable`)."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import playable
from benchmarks.films import ffmpeg
from benchmarks.report import Figure
from streamgate.packaging.sampleindex import SourceIndex, index_mp4
from streamgate.packaging.segments import SegmentLayout, StoredIndex

MINUTES = {1: "", 60: "≤ 100", 180: "≤ 300"}
RUNS = 7
DRAWN = 2000
"""Segments that are made, at random over the whole film, once to warm the page cache and once to measure."""


def film(folder: Path, minutes: int) -> Path:
    """A film in 720p with B-frames, key frames up to 250 apart, and AAC; its minutes are alike."""
    path = folder / f"instant-{minutes}.mp4"
    if path.exists():
        return path
    if minutes > 1:
        loops = ("-stream_loop", str(minutes - 1), "-i", str(film(folder, 1)), "-c", "copy")
        subprocess.run([ffmpeg(), "-v", "error", "-y", *loops, str(path)], check=True)
        return path
    source = (
        *("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=30:d=60", "-f", "lavfi", "-i", "sine=f=330:b=4:d=60:r=48000"),
        *("-c:v", "libx264", "-preset", "superfast", "-bf", "3", "-g", "250", "-b:v", "800k", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-b:a", "128k", "-ac", "2"),
    )
    subprocess.run([ffmpeg(), "-v", "error", "-y", *source, str(path)], check=True)
    return path


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Index time, index size and memory by length; time of a segment, over the longest."""
    figures: list[Figure] = []
    for minutes, target in MINUTES.items():
        path = film(folder, minutes)
        size = path.stat().st_size
        with path.open("rb") as file:

            def read(offset: int, length: int, descriptor: int = file.fileno()) -> bytes:
                return os.pread(descriptor, length, offset)

            times, index = _timed(read, size)
            note = f"{size >> 20} MiB, page cache warm"
            figures.append(Figure(f"index of a film of {minutes} min", times, "ms", target, note))
            if minutes >= 60:
                per_hour = len(index.blob) / (1 << 20) * 60 / minutes
                figures.append(Figure(f"index for each hour, {minutes} min", (per_hour,), "MiB", "about 5"))
                front = StoredIndex.front_length(index.blob) / 1024
                figures.append(Figure(f"front of an index in memory, {minutes} min", (front,), "KiB", ""))
                figures += _segments(index, size, read, minutes)
    return [*figures, *playable.measure(folder, given)]


def _timed(read: Callable[[int, int], bytes], size: int) -> tuple[tuple[float, ...], SourceIndex]:
    index = index_mp4(read, size)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        index = index_mp4(read, size)
        times.append((time.perf_counter() - began) * 1000)
    return tuple(times), index


def _segments(index: SourceIndex, size: int, read: Callable[[int, int], bytes], minutes: int) -> list[Figure]:
    stored = StoredIndex.load(index.blob, size)
    figures = []
    for track in (index.video, *index.audio):
        if track is None:
            continue
        chance = random.Random(1)
        drawn = [chance.randrange(len(track.boundaries) - 1) for _ in range(DRAWN)]
        for number in drawn:
            _assembled(stored.segment(track.number, number), read)
        times, made = [], 0
        for number in drawn:
            began = time.perf_counter()
            data = _assembled(stored.segment(track.number, number), read)
            times.append((time.perf_counter() - began) * 1000)
            made += len(data)
        times.sort()
        note = f"{made // DRAWN >> 10} KiB each, {made / sum(times) / 1e6:.2f} GB/s"
        what = f"{track.kind} segment out of an index of {minutes} min"
        figures.append(Figure(f"{what}, p50", (statistics.median(times),), "ms", "≤ 0.15", note))
        figures.append(Figure(f"{what}, p99", (times[int(DRAWN * 0.99)],), "ms", "≤ 2"))
    return figures


def _assembled(layout: SegmentLayout, read: Callable[[int, int], bytes]) -> bytes:
    """As `plugins/streaming` joins them where their ranges lie close together."""
    return layout.joined([(offset, read(offset, length)) for offset, length in layout.span()])
