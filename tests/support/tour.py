"""A long film in a browser, seconds after its upload: seeks to anywhere, and switches between the upload and encoded rungs."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.players import player

HARMLESS = frozenset({"bufferAppendNoProgress"})
"""Back in a segment that stands alone, hls.js takes it for ending later (by the reorder delay that the edit list takes away),
fetches it once more, and says that this was for nothing."""

ADVANCED_S = 0.3
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class Tour:
    """What was seen. Seconds: until the first picture moved, until each seek went on, and the longest time that it stood still
    before it was asked to switch and while it was seeking. ``requested``: the renditions that media was fetched of."""

    start_s: float
    seeks_s: tuple[float, ...]
    stall_s: float
    problems: tuple[str, ...]
    requested: frozenset[str]


def tour(name: str, url: str, duration: float, *, seeks: int, switches: Sequence[int], seed: int = 11) -> Tour:
    """Play, seek to ``seeks`` random places, in equal parts between the ``switches`` (heights) that are made in turn."""
    draw = random.Random(seed)
    places = [draw.uniform(0, duration - 30) for _ in range(seeks)]
    parts = len(switches) + 1
    legs = [places[n * seeks // parts : (n + 1) * seeks // parts] for n in range(parts)]
    with player(name) as screen:
        began = time.monotonic()
        screen.start(url)
        screen.wait_until_past(0.1, LONGEST_WAIT_S)
        start = time.monotonic() - began
        waited = []
        for leg, height in zip(legs, [*switches, None], strict=True):
            for place in leg:
                began = time.monotonic()
                screen.seek(place)
                screen.wait_until_past(place + ADVANCED_S, LONGEST_WAIT_S)
                waited.append(time.monotonic() - began - ADVANCED_S)
            if height is not None:
                screen.switch(height)
        problems = tuple(found for found in screen.problems() if found.strip() not in HARMLESS)
        fetched = frozenset(address.split("/")[-2] for address in screen.requested if address.endswith(".m4s"))
        return Tour(start, tuple(waited), screen.longest_stall(), problems, fetched)
