"""The monitor: aggregated health. Needs neither the database nor the bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.monitor import Status
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.monitor.settings import MonitorSettings
from streamgate.ports.discovery import Discovery
from streamgate.runtime.health import HealthBoard


@asynccontextmanager
async def setup(context: Context[MonitorSettings]) -> AsyncGenerator[Parts, None]:
    """Start the monitor."""
    import aiohttp

    from streamgate.plugins.monitor.http import controllers
    from streamgate.plugins.monitor.service import StatusService

    async with aiohttp.ClientSession() as http:
        service = StatusService(context.need(HealthBoard), context.need(Discovery), http, context.settings.timeout_s)
        status: Status = service
        yield Parts(provides={Status: status}, routes=controllers(status))


plugin = Plugin(
    name="monitor", settings=MonitorSettings, setup=setup, requires=(HealthBoard, Discovery), provides=(Status,)
)
