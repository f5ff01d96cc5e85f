"""Where scans of uploads stand that were made while they arrived, for whoever plans the whole film next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from streamgate.media.model import Grown

MOST = 64 << 20
"""Bytes that are kept of all uploads together; of more, those go first that were not added to for longest."""

KEPT_S = 60.0
"""Seconds after the last look at an upload that its scan is kept: an upload that is followed is looked at much oftener."""


class Scans:
    """By film, in the memory of this process. One that is gone, or never was here, costs reading the film once more."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[bytes, asyncio.TimerHandle]] = OrderedDict()

    def looked(self, asset_id: str, found: Grown) -> None:
        """A look at a film came to this: keep where its scan stands now, if it has one. What was written out is kept elsewhere."""
        self.take(asset_id)
        if not found.state or found.size:
            return
        forgetting = asyncio.get_running_loop().call_later(KEPT_S, self.take, asset_id)
        self._known[asset_id] = found.state, forgetting
        while sum(len(kept) for kept, _ in self._known.values()) > self._most:
            self.take(next(iter(self._known)))

    def take(self, asset_id: str) -> Grown | None:
        """Where it stands, and forget it; None when that is not known."""
        known = self._known.pop(asset_id, None)
        if known is None:
            return None
        known[1].cancel()
        return Grown(state=known[0])
