"""How long the work at hand may still take. Set at the edge, carried along every call, never extended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from streamgate.domain.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("streamgate_deadline", default=None)

DEFAULT_S = 10.0
"""A call made outside any deadline gets this many seconds."""


def remaining_s() -> float | None:
    """Seconds left, at least 0; None outside any deadline."""
    at = _deadline.get()
    return None if at is None else max(0.0, at - asyncio.get_running_loop().time())


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Run the block within ``seconds``, or within what an outer deadline leaves if that is less.

    Raises `DeadlineExceeded` when the time runs out; the block is cancelled.
    """
    loop = asyncio.get_running_loop()
    at = loop.time() + seconds
    outer = _deadline.get()
    if outer is not None and outer < at:
        at = outer
    token = _deadline.set(at)
    try:
        async with asyncio.timeout_at(at) as scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise DeadlineExceeded("The request took longer than its deadline.", retry_after=1) from None
        raise
    finally:
        _deadline.reset(token)
