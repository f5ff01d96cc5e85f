"""Work of a plugin beside its requests, supervised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog


@asynccontextmanager
async def every(
    seconds: float, work: Callable[[], Awaitable[object]], *, name: str, at_once: bool = False
) -> AsyncIterator[None]:
    """Run ``work`` each ``seconds`` while the block runs; what it raises is logged and the next time comes all the same."""

    async def repeat() -> None:
        if not at_once:
            await asyncio.sleep(seconds)
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (one failure must not end what runs for ever)
                structlog.get_logger().warning("periodic work failed", work=name, exc_info=error)
            await asyncio.sleep(seconds)

    task = asyncio.create_task(repeat(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def beside(work: Coroutine[object, object, object], *, name: str) -> AsyncIterator[None]:
    """Run ``work`` once beside the block; what is left of it when the block ends is cancelled."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
