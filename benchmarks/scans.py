"""Films that must be read through once: Matroska of 1, 60 and 180 minutes is indexed, MPEG-TS is written out."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.films import ffmpeg
from benchmarks.instant import film
from benchmarks.report import Figure
from streamgate.media.model import Limits
from streamgate.media.opening import Source
from streamgate.media.probe import probe
from streamgate.media.remux import remux
from streamgate.packaging.matroskaindex import index_matroska

MINUTES = (1, 60, 180)
RUNS = 5
_REMUXED = (1, 60)


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Processor time by length, which other work on the machine does not change much."""
    figures: list[Figure] = []
    for minutes in MINUTES:
        path = folder / f"scanned-{minutes}.mkv"
        copied = ("-i", str(film(folder, minutes)), "-c", "copy")
        subprocess.run([ffmpeg(), "-v", "error", "-y", *copied, str(path)], check=True)
        size = path.stat().st_size
        times = []
        with path.open("rb") as file:

            def read(offset: int, length: int, descriptor: int = file.fileno()) -> bytes:
                return os.pread(descriptor, length, offset)

            index_matroska(read, size)
            for _ in range(RUNS):
                began = time.process_time()
                index_matroska(read, size)
                times.append((time.process_time() - began) * 1000)
        note = f"processor time; {size >> 20} MiB, page cache warm"
        figures.append(Figure(f"index of Matroska of {minutes} min", tuple(times), "ms", "", note))
        path.unlink()
    return [*figures, *(_written_out(folder, minutes) for minutes in _REMUXED)]


def _written_out(folder: Path, minutes: int) -> Figure:
    path = folder / f"scanned-{minutes}.ts"
    copied = ("-i", str(film(folder, minutes)), "-c", "copy")
    subprocess.run([ffmpeg(), "-v", "error", "-y", *copied, str(path)], check=True)
    ours, theirs = socket.socketpair()
    times = []
    with ours, theirs:
        source = Source(path.stat().st_size, str(path), ours)
        found = probe(source, Limits())
        for _ in range(3):
            with tempfile.TemporaryDirectory(dir=folder) as room:
                began = time.process_time()
                remux(source, found, folder=Path(room), within_s=600, segment_s=4.0)
                times.append(time.process_time() - began)
    path.unlink()
    return Figure(
        f"MPEG-TS of {minutes} min written out and indexed",
        tuple(times),
        "s",
        "",
        f"processor time; {source.size >> 20} MiB",
    )
