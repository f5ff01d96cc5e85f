"""Films that must be read through once: the time to index Matroska of 1, 60 and 180 minutes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.films import ffmpeg
from benchmarks.instant import film
from benchmarks.report import Figure
from streamgate.packaging.matroskaindex import index_matroska

MINUTES = (1, 60, 180)
RUNS = 5


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Index times by length, and how much of the file is read for them."""
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
                began = time.perf_counter()
                index_matroska(read, size)
                times.append((time.perf_counter() - began) * 1000)
        note = f"{size >> 20} MiB, page cache warm"
        figures.append(Figure(f"index of Matroska of {minutes} min", tuple(times), "ms", "", note))
        path.unlink()
    return figures
