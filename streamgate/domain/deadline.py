"""How long the work at hand may still take. Set at the edge, carried along every call, never extended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from streamgate.domain.errors import DeadlineExceeded

DEFAULT_S = 10.0
"""A call made outside any deadline gets this many seconds."""


class Deadline:
    """When the work at hand must be over."""

    def __init__(self, at: float, scope: asyncio.Timeout) -> None:
        self._at: float | None = at
        self._scope = scope

    @property
    def at(self) -> float | None:
        """The moment in the loop's time; None once it was lifted."""
        return self._at

    def lift(self) -> None:
        """Bind the block, and the calls that are made from now on, no longer. An outer deadline stands."""
        self._at = None
        if not self._scope.expired():
            self._scope.reschedule(None)

    def end(self) -> None:
        """The block is over."""
        self._at = None


_deadline: ContextVar[Deadline | None] = ContextVar("streamgate_deadline", default=None)


def remaining_s() -> float | None:
    """Seconds left, at least 0; None outside any deadline."""
    bound = _deadline.get()
    return None if bound is None or bound.at is None else max(0.0, bound.at - asyncio.get_running_loop().time())


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[Deadline]:
    """Run the block within ``seconds``, or within what an outer deadline leaves if that is less.

    Raises `DeadlineExceeded` when the time runs out; the block is cancelled. Tasks that outlive the block are bound no longer.
    """
    at = asyncio.get_running_loop().time() + seconds
    outer = _deadline.get()
    if outer is not None and outer.at is not None and outer.at < at:
        at = outer.at
    scope = asyncio.timeout_at(at)
    bound = Deadline(at, scope)
    token = _deadline.set(bound)
    try:
        async with scope:
            yield bound
    except TimeoutError:
        if scope.expired():
            raise DeadlineExceeded("The request took longer than its deadline.", retry_after=1) from None
        raise
    finally:
        _deadline.reset(token)
        bound.end()
