"""Routes of the monitor."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from streamgate.contracts.monitor import Status, SystemStatus
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm


def controllers(status: Status) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class SystemController(Controller):
        path = "/api/v1/system"
        tags = ("system",)
        opt = realm("system")

        @get("/status", opt=least(Role.ADMIN), operation_id="systemStatus", summary="Health of every service")
        async def read(self, caller: NamedDependency[Caller]) -> SystemStatus:
            """Each service with its checks; the overall status is the worst of them."""
            return await status.status(caller)

    return [SystemController]
