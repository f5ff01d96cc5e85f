"""How a measurement is told."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One row: what, the figure (median), its spread (lowest and highest), unit, target, and how it was had."""

    what: str
    values: tuple[float, ...]
    unit: str
    target: str
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def row(self) -> str:
        """A row of a Markdown table."""
        spread = (
            f"{min(self.values):.2f}–{max(self.values):.2f} ({len(self.values)})" if len(self.values) > 1 else "one run"
        )
        return f"| {self.what} | {self.median:.2f} {self.unit} | {spread} | {self.target} | {self.note} |"


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table."""
    head = "| what | median | spread (runs) | target | how |\n|---|---|---|---|---|\n"
    return head + "\n".join(figure.row() for figure in figures)


def machine() -> str:
    """The machine in one line."""
    import os

    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // (1 << 20)
    return f"{os.cpu_count()} cores of {model}, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()}"
