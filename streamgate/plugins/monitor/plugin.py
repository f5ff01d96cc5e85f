"""The monitor: aggregated health. Needs neither the database nor the bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from streamgate.contracts.monitor import Status
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.monitor.settings import MonitorSettings
from streamgate.ports.discovery import Discovery
from streamgate.runtime.health import HealthBoard
from streamgate.runtime.site import Introduction


@asynccontextmanager
async def setup(context: Context[MonitorSettings]) -> AsyncGenerator[Parts, None]:
    """Start the monitor."""
    from streamgate.plugins.monitor.http import controllers
    from streamgate.plugins.monitor.service import StatusService

    discovery = context.need(Discovery)
    async with AsyncExitStack() as stack:
        asking = None
        if await discovery.services():
            from streamgate.plugins.monitor.asking import Asking

            asking = await stack.enter_async_context(Asking(context.settings.timeout_s, context.need(Introduction)))
        service = StatusService(context.need(HealthBoard), discovery, asking)
        status: Status = service
        yield Parts(provides={Status: status}, routes=controllers(status))


plugin = Plugin(
    name="monitor",
    settings=MonitorSettings,
    setup=setup,
    requires=(HealthBoard, Discovery, Introduction),
    provides=(Status,),
)
