"""``grpc.health.v1`` of what is answered here, and of what is passed on: that is asked of its own service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from streamgate.domain import deadline

FRESH_S = 1.0
"""An answer of another service is good for so long, however often it is asked for."""

WATCH_S = 5.0
PATIENCE_S = 2.0

Serving = Callable[[], Awaitable[bool]]


class Standing(health.aio.HealthServicer):  # type: ignore[misc]
    """The standard service. ``elsewhere``: full name of a contract that is passed on → whether its service answers."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: dict[str, Serving] = {}
        self._asked: dict[str, float] = {}

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 (the name is the standard's)
        await self._look(request.service)
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        async def looking() -> None:
            while True:
                await self._look(request.service)
                await asyncio.sleep(WATCH_S)

        task = asyncio.create_task(looking())
        try:
            await super().Watch(request, context)
        finally:
            task.cancel()

    async def _look(self, name: str) -> None:
        serving, now = self.elsewhere.get(name), time.monotonic()
        if serving is None or now - self._asked.get(name, -FRESH_S) < FRESH_S:
            return
        self._asked[name] = now
        async with deadline.within(2 * PATIENCE_S):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    answers = await serving()
            except TimeoutError:
                answers = False
        await self.set(name, HealthCheckResponse.SERVING if answers else HealthCheckResponse.NOT_SERVING)
