"""Waiting for what is committed: woken at once by commits of this process, and by looking now and then for those of others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOOK_EVERY_S = 0.5


class Ear:
    """Hears of one film (or of another thing that has a name) from when it is made: also what happens between two pauses."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def hear(self) -> None:
        """Something happened."""
        self._event.set()

    async def pause(self) -> None:
        """Return when something happened since the last pause, or after half a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._event.wait()
        self._event.clear()


class Arrivals:
    """Who listens for what."""

    def __init__(self) -> None:
        self._ears: dict[str, set[Ear]] = defaultdict(set)

    def happened(self, name: str) -> None:
        """Something of the film (or of what else has that name) changed: everybody who listens for it looks again."""
        for ear in self._ears.get(name, ()):
            ear.hear()

    def all(self) -> None:
        """Everybody looks again."""
        for name in list(self._ears):
            self.happened(name)

    @contextmanager
    def listening(self, name: str) -> Iterator[Ear]:
        """An ear for as long as the block runs; whoever looks only within it misses nothing."""
        ear = Ear()
        self._ears[name].add(ear)
        try:
            yield ear
        finally:
            self._ears[name].discard(ear)
            if not self._ears[name]:
                del self._ears[name]
