"""Memory of a process and everything below it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


def proportional(pid: int, *, below: bool = False) -> float:
    """PSS of a process tree in MiB: memory that is shared counts once in all. ``below``: without the process itself."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (*(() if below else (root,)), *root.children(recursive=True)):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
    return total / 1024


class Peak:
    """The highest PSS of a process tree while the block runs, looked at ten times a second; ``below`` as in `proportional`."""

    def __init__(self, pid: int, *, below: bool = False) -> None:
        self._pid = pid
        self._below = below
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.highest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.highest = max(self.highest, proportional(self._pid, below=self._below))
