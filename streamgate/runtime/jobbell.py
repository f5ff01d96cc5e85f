"""What wakes the idle slots of a runner: a ring wakes one slot of one runner, wherever it was rung, and no other.

Rings go over the bus to one member of a group: the runners of a queue that take jobs of the same urgency. A runner hears from the
moment a slot is idle. One that is rung while it has no idle slot stops hearing and passes the ring on, so that it comes to an
idle runner if there is any; else it is dropped, for whoever ends a job looks for the next by itself. A ring that is lost costs the
poll time, never a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress

import structlog

from streamgate.domain.errors import StreamGateError
from streamgate.ports.bus import Bus, Message

OPEN_S = 1.0
"""How long a slot waits to be heard of by a bus that may be away; then it only polls."""


def place(queue: str) -> str:
    """Where the queue is rung for."""
    return f"sg.jobs.{queue}"


class Ring:
    """Whether one slot was rung for since it was enlisted."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def rung(self) -> bool:
        return self._event.is_set()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when it is rung, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


class Bell:
    """The bell of one runner. ``takes``: whether it still takes jobs; else rings are passed on."""

    def __init__(self, bus: Bus, queue: str, *, group: str, takes: Callable[[], bool]) -> None:
        self._bus = bus
        self._subject = place(queue)
        self._group = group
        self._takes = takes
        self._enlisted: list[Ring] = []
        self._ear: AbstractAsyncContextManager[None] | None = None
        self._turning = asyncio.Lock()

    @contextmanager
    def enlisted(self) -> Iterator[Ring]:
        """While the block runs a slot can be rung for: it looks for a job, or waits for one."""
        ring = Ring()
        self._enlisted.append(ring)
        try:
            yield ring
        finally:
            self._enlisted.remove(ring)

    def ring(self) -> bool:
        """Ring for one slot of this runner; False when none is enlisted that was not rung for already."""
        for ring in self._enlisted:
            if not ring.rung:
                ring.ring()
                return True
        return False

    def ring_all(self) -> None:
        """Ring for every slot."""
        for ring in self._enlisted:
            ring.ring()

    async def listen(self) -> bool:
        """Hear rings of others from now on, if the bus allows; True when that was not so before."""
        async with self._turning:
            if self._ear is not None:
                return False
            try:
                async with asyncio.timeout(OPEN_S):
                    ear = await self._bus.listen(self._subject, self._hear, group=self._group)
            except (StreamGateError, TimeoutError):
                structlog.get_logger().debug("rings are not heard now", subject=self._subject)
                return False
            await ear.__aenter__()
            self._ear = ear
            return True

    async def close(self) -> None:
        """Hear no more."""
        async with self._turning:
            ear, self._ear = self._ear, None
            if ear is not None:
                await ear.__aexit__(None, None, None)

    async def pass_on(self) -> None:
        """Ring for another runner."""
        await self.close()
        await self._bus.signal(Message(self._subject, b""))

    async def _hear(self, _message: Message) -> None:
        if not self._takes() or not self.ring():
            await self.pass_on()
