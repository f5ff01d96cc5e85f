"""Periodic work whose last run can be seen: what ran when, for how long, and what went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from streamgate.domain.clock import Clock
from streamgate.domain.errors import StreamGateError
from streamgate.runtime.background import every
from streamgate.runtime.database import Database
from streamgate.runtime.deferred import Deferred

if TYPE_CHECKING:
    from streamgate.runtime import schedulestore
else:
    schedulestore = Deferred("streamgate.runtime.schedulestore")

LONGEST_ERROR = 500


class Schedules:
    """Runs periodic work and writes each run down."""

    def __init__(self, database: Database, clock: Clock, service: str) -> None:
        self._database = database
        self._clock = clock
        self._service = service

    @asynccontextmanager
    async def every(
        self, seconds: float, work: Callable[[], Awaitable[object]], *, name: str, at_once: bool = False
    ) -> AsyncIterator[None]:
        """As `background.every`; each run is written down when it has ended. ``name`` is unique within the service."""

        async def recorded() -> None:
            started = self._clock.now_ms()
            try:
                await work()
            except Exception as error:
                detail = error.detail if isinstance(error, StreamGateError) else type(error).__name__
                await self._write(name, seconds, started, detail[:LONGEST_ERROR])
                raise
            await self._write(name, seconds, started, None)

        async with every(seconds, recorded, name=name, at_once=at_once):
            yield

    async def all(self) -> list[schedulestore.Scheduled]:
        """Everything that ever ran, of all services of this database."""
        async with self._database.read() as connection:
            return await schedulestore.find(connection)

    async def _write(self, name: str, seconds: float, started_ms: int, error: str | None) -> None:
        ended = self._clock.now_ms()
        try:
            async with self._database.write() as tx:
                await schedulestore.ran(
                    tx,
                    self._service,
                    name,
                    every_s=seconds,
                    started_ms=started_ms,
                    finished_ms=ended,
                    error=error,
                )
        except StreamGateError as lost:
            structlog.get_logger().warning("a run was not written down", work=name, reason=lost.detail)
