"""Who may run: background encoders stand still while a viewer waits, and time that a child stands still is not counted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from streamgate.media.children import Child


class Allowance:
    """The wall time of one child. ``ended`` is set when it is used up; it does not run while held."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._holds = 1
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    def hold(self) -> None:
        """Stop the clock; holds nest."""
        self._holds += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= asyncio.get_running_loop().time() - self._since

    def release(self) -> None:
        """Undo one hold (a new allowance is held once)."""
        self._holds -= 1
        if not self._holds:
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            self._timer = loop.call_later(max(0.0, self._left), self.ended.set)

    def cancel(self) -> None:
        """The child is gone."""
        self.hold()


class Precedence:
    """Stops eager children while any other one runs."""

    def __init__(self) -> None:
        self._eager: dict[Child, Allowance] = {}
        self._urgent = 0

    @contextlib.contextmanager
    def running(self, child: Child, allowance: Allowance, *, eager: bool) -> Iterator[None]:
        """For as long as a child works; the allowance runs within."""
        allowance.release()
        try:
            if eager:
                yield from self._as_eager(child, allowance)
            else:
                yield from self._as_urgent()
        finally:
            allowance.cancel()

    def _as_eager(self, child: Child, allowance: Allowance) -> Iterator[None]:
        self._eager[child] = allowance
        if self._urgent:
            self._stop(child, allowance)
        try:
            yield
        finally:
            del self._eager[child]

    def _as_urgent(self) -> Iterator[None]:
        self._urgent += 1
        if self._urgent == 1:
            for child, allowance in self._eager.items():
                self._stop(child, allowance)
        try:
            yield
        finally:
            self._urgent -= 1
            if not self._urgent:
                for child, allowance in self._eager.items():
                    child.signal(signal.SIGCONT)
                    allowance.release()

    def _stop(self, child: Child, allowance: Allowance) -> None:
        child.signal(signal.SIGSTOP)
        allowance.hold()
