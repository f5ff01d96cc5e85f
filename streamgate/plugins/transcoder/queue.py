"""How much encoding waits: what replicas are added and taken away by, and what health tells."""

from __future__ import annotations

from collections.abc import Mapping

from streamgate.kernel import Check
from streamgate.media.sandbox import Sandbox
from streamgate.plugins.transcoder.counters import EncodeCounters
from streamgate.plugins.transcoder.films import QUEUE
from streamgate.runtime.jobs import Jobs


class EncodeQueue:
    """The transcoder's queue of jobs, as this replica sees it."""

    def __init__(self, jobs: Jobs, sandbox: Sandbox, counters: EncodeCounters) -> None:
        self._jobs = jobs
        self._sandbox = sandbox
        self._counters = counters

    async def measure(self) -> tuple[int, float]:
        """Runnable jobs and the age in seconds of the oldest, also told to the metrics."""
        depth, age = await self._jobs.depth(QUEUE)
        self._counters.waiting(depth, age)
        return depth, age

    async def health(self) -> Mapping[str, Check]:
        """Whether encoders are confined, and what waits."""
        absent = [name for name, held in self._sandbox.protections().items() if not held]
        confined = Check("degraded", f"encoders run without {', '.join(absent)}") if absent else Check("ok")
        depth, age = await self.measure()
        speed = round(self._counters.speed, 2)
        values = {"runnable": float(depth), "oldest_s": round(age, 1), "encode_speed": speed}
        return {"sandbox": confined, "queue": Check("ok", f"{depth} jobs wait, the oldest since {age:.0f} s", values)}
