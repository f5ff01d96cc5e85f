"""What was asked and what came of it. What was acknowledged must be so; what failed may be so or not ("unknown")."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_SHOWN = 20


@dataclass(eq=False)
class Film:
    """An upload and what becomes of it. ``acknowledged``: bytes; ``complete``: so was the last one, at the
    monotonic time ``completed``.

    ``policy``: the last document that was acknowledged; ``doubtful``: those that came after it without an answer.
    """

    title: str
    source: int
    size: int
    policy_id: str
    policy: Mapping[str, Any]
    url: str
    asset_id: str
    acknowledged: int = 0
    complete: bool = False
    completed: float = 0.0
    state: str = ""
    doubtful: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """A media address whose right was taken away. ``after``: monotonic time from which nothing may be served."""

    url: str
    how: str
    after: float


class Book:
    """Shared by everybody who takes part."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.films: list[Film] = []
        self.ended: list[Ended] = []
        self.violations: list[str] = []
        self.untyped: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest_served_s = 0.0
        self.plays: list[tuple[float, float, str]] = []
        """Of the one who always watches: when it asked, when it was answered, and with what (empty: the right bytes)."""

    def wrong(self, sentence: str) -> None:
        """Something that must never be."""
        with self._lock:
            self.violations.append(sentence)

    def count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self.counts[what] += by

    def answered(self, who: str, status: int, text: str) -> None:
        """Every answer of the product that is an error is one of its own; a 500 is none."""
        self.count(f"{who} {status}")
        if status == 500:
            with self._lock:
                self.untyped.append(f"{who}: 500 {text[:300]}")

    def served_for(self, seconds: float) -> None:
        """So long after the loss of a right the last bytes were asked for that still came."""
        with self._lock:
            self.longest_served_s = max(self.longest_served_s, seconds)

    def begin(self, film: Film) -> None:
        with self._lock:
            self.films.append(film)

    def end(self, ended: Ended) -> None:
        with self._lock:
            self.ended.append(ended)

    def ready(self) -> list[Film]:
        """Films that play."""
        with self._lock:
            return [film for film in self.films if film.state == "ready"]

    def gaps(self, since: float, until: float) -> list[tuple[float, float]]:
        """When nothing played to the one who always watches: (beginning, seconds), longest first."""
        found = []
        last = since
        for _, answered, trouble in self.plays:
            if since <= answered <= until and not trouble:
                found.append((last, answered - last))
                last = answered
        return sorted([*found, (last, max(0.0, until - last))], key=lambda gap: -gap[1])


def shown(sentences: Sequence[str]) -> str:
    """The first of them, one a line."""
    more = len(sentences) - MOST_SHOWN
    return "\n".join([*(f"  {one}" for one in sentences[:MOST_SHOWN]), *([f"  and {more} more"] if more > 0 else [])])


def now() -> float:
    return time.monotonic()
