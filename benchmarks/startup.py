"""How long a start takes, and what an idle process weighs."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.processes import proportional
from benchmarks.report import Figure
from tests.support.server import Server

STARTS = 7


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Second and later starts to ready; PSS of the whole process tree five seconds later."""
    server = Server(folder / "startup")
    server.start()
    server.stop()
    starts, weights = [], []
    for _ in range(STARTS):
        starts.append(server.start())
        time.sleep(5)
        assert server.process is not None
        weights.append(proportional(server.process.pid))
        server.stop()
    return [
        Figure("second start to ready", tuple(starts), "s", "≤ 2 s", "process start until /health/ready answers 200"),
        Figure("idle memory of the process tree", tuple(weights), "MiB", "≤ 250 MB", "PSS, 5 s after the start"),
    ]
