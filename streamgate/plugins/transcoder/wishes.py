"""Segments that somebody waits for: their jobs are urgent from when the first asks until the last has gone away.

How urgent a job is stands in its row, so whoever runs it, in this process or another, sees there that nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from streamgate.domain import deadline
from streamgate.domain.errors import StreamGateError
from streamgate.plugins.transcoder.arrivals import LOOK_EVERY_S
from streamgate.plugins.transcoder.films import Films
from streamgate.plugins.transcoder.store import Film

FAREWELL_S = 0.5
"""A call that is cancelled so shortly before its deadline met it: whoever made it asks again, and the work goes on."""

_Place = tuple[str, str, int]
"""Plan, rendition, chunk."""


class Wish:
    """One call that waits for a segment."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._again_at = 0.0
        self.places: dict[_Place, Film] = {}

    async def ask(self, film: Film, rendition: str, chunk: int) -> None:
        """Have the chunk made for that rendition before what nobody waits for.

        To be repeated while it is waited for: every half second it is seen to that it still is so.
        """
        place, now = (film.plan_id or "", rendition, chunk), asyncio.get_running_loop().time()
        if place in self.places and now < self._again_at:
            return
        if place not in self.places:
            self.places[place] = film
            self._wishes.waiting[place] += 1
        self._again_at = now + LOOK_EVERY_S
        await self._wishes.films.want(film, rendition, chunk)


class Wishes:
    """Who waits in this process, and for what."""

    def __init__(self, films: Films) -> None:
        self.films = films
        self.waiting: Counter[_Place] = Counter()
        self._farewells: set[asyncio.Task[None]] = set()

    @contextmanager
    def wish(self) -> Iterator[Wish]:
        """What is asked for within is wanted for as long as the block runs, and after it unless the block is cancelled."""
        wish, left = Wish(self), False
        try:
            yield wish
        except asyncio.CancelledError:
            remaining = deadline.remaining_s()
            left = remaining is None or remaining > FAREWELL_S
            raise
        finally:
            self._end(wish, left=left)

    def _end(self, wish: Wish, *, left: bool) -> None:
        for place, film in wish.places.items():
            self.waiting[place] -= 1
            if not self.waiting[place]:
                del self.waiting[place]
                if left:
                    farewell = asyncio.create_task(self._take_back(place, film))
                    self._farewells.add(farewell)
                    farewell.add_done_callback(self._farewells.discard)

    async def _take_back(self, place: _Place, film: Film) -> None:
        if self.waiting[place]:
            return
        try:
            await self.films.unwant(film, *place[1:])
        except StreamGateError as error:
            # It is made although nobody waits: work, and no harm.
            structlog.get_logger().warning("a wish was not taken back", asset_id=film.asset_id, reason=error.detail)
