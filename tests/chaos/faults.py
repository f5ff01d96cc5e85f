"""Which faults there are, and in what order a seed brings them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.support.nine import SERVICES

BACKENDS = ("postgresql", "redis", "nats", "s3")


class Kind(StrEnum):
    """``KILL``: SIGKILL. Of a line to a backend: ``CUT``: every connection is reset, and every new one; ``SLOW``: each
    piece of data is held; ``HALF_OPEN``: what is connected never hears anything again, nor that it is so, and new
    connections are taken and never answered.
    """

    KILL = "kill"
    CUT = "cut"
    SLOW = "slow"
    HALF_OPEN = "half-open"


@dataclass(frozen=True)
class Fault:
    """``seconds``: how long the backend stays away, or its line is broken; a service is started again by its supervisor."""

    kind: Kind
    target: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


COMBINATIONS = tuple(
    [(Kind.KILL, target) for target in (*SERVICES, *BACKENDS)]
    + [(kind, target) for kind in (Kind.CUT, Kind.SLOW, Kind.HALF_OPEN) for target in BACKENDS]
)
"""Every kind with every target that it makes sense for."""

_SECONDS = {Kind.KILL: (0.5, 2.0), Kind.CUT: (1.0, 3.0), Kind.SLOW: (2.0, 4.0), Kind.HALF_OPEN: (3.0, 6.0)}


def schedule(seed: int) -> Iterator[Fault]:
    """Faults without end, always the same for a seed: all combinations in some order, then all in another, and so on."""
    dice = random.Random(seed)
    while True:
        order = list(COMBINATIONS)
        dice.shuffle(order)
        for kind, target in order:
            yield Fault(kind, target, round(dice.uniform(*_SECONDS[kind]), 2))


def by_kind(faults: Iterable[Fault]) -> str:
    """How many of each kind, in a few characters."""
    counts = Counter(fault.kind for fault in faults)
    return " ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])


def not_done(faults: Iterable[Fault]) -> list[str]:
    """Combinations that are missing among those."""
    done = {(fault.kind, fault.target) for fault in faults}
    return [f"{kind} {target}" for kind, target in COMBINATIONS if (kind, target) not in done]
