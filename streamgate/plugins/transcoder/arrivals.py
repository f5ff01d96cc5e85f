"""Waiting for chunks: woken at once by commits of this process, and by looking every now and then for those of others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress

LOOK_EVERY_S = 0.5


class Arrivals:
    """Who waits for which film."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    def happened(self, asset_id: str) -> None:
        """Something of the film changed: everybody who waits for it looks again."""
        for event in self._waiting.get(asset_id, ()):
            event.set()

    def all(self) -> None:
        """Everybody looks again."""
        for asset_id in list(self._waiting):
            self.happened(asset_id)

    async def pause(self, asset_id: str) -> None:
        """Return when something of the film changed, or after half a second."""
        event = asyncio.Event()
        self._waiting[asset_id].add(event)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await event.wait()
        finally:
            self._waiting[asset_id].discard(event)
            if not self._waiting[asset_id]:
                del self._waiting[asset_id]
