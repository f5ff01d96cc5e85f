"""The state of the process itself: how late its event loop runs, what it holds, and how much room its disk has."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from streamgate.kernel.plugin import Check
from streamgate.runtime.background import beside
from streamgate.runtime.telemetry import Metrics

LOOK_S = 1.0
REMEMBERED = 60
LATE_S = 0.25
SCARCE = 0.10
"""Part of the disk that is free, below which health is degraded; below a tenth of that it is down."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """Measures once a second while `measuring` runs."""

    def __init__(self, data_dir: Path, metrics: Metrics) -> None:
        self._data_dir = data_dir
        self._metrics = metrics
        self._lags: deque[float] = deque([0.0], maxlen=REMEMBERED)

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[None]:
        """Measure the event loop for as long as the block runs."""

        async def look() -> None:
            loop = asyncio.get_running_loop()
            while True:
                due = loop.time() + LOOK_S
                await asyncio.sleep(LOOK_S)
                lag = max(0.0, loop.time() - due)
                self._lags.append(lag)
                self._metrics.lag.set(lag)

        async with beside(look(), name="event loop lag"):
            yield

    async def health(self) -> Mapping[str, Check]:
        """``process`` is degraded when the loop was late lately, ``disk`` when room is scarce."""
        worst = max(self._lags)
        late = f"the event loop was {worst * 1000:.0f} ms late within the last minute" if worst > LATE_S else ""
        lags = {"event_loop_lag_s": round(self._lags[-1], 4), "event_loop_lag_max_s": round(worst, 4)}
        held = {**lags, "tasks": float(len(asyncio.all_tasks())), **_held()}
        return {"": Check("degraded" if late else "ok", late, held), "disk": self._disk()}

    def _disk(self) -> Check:
        place = next(folder for folder in (self._data_dir, *self._data_dir.parents) if folder.exists())
        usage = shutil.disk_usage(place)
        free = usage.free / usage.total if usage.total else 0.0
        status = "ok" if free >= SCARCE else "degraded" if free >= SCARCE / 10 else "down"
        values = {"free_bytes": float(usage.free), "total_bytes": float(usage.total)}
        return Check(status, f"{free:.0%} of the disk is free" if status != "ok" else "", values)


def _held() -> dict[str, float]:
    """Open files and resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {"open_files": float(files), "resident_bytes": float(pages * _PAGE)}
