"""Status, owned by the monitor: the health of everything in one answer."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from streamgate.contracts.declare import contract, user
from streamgate.domain.identity import Caller, Role

Condition = Literal["ok", "degraded", "down"]


class CheckResult(msgspec.Struct, frozen=True):
    """One check. The names of ``values`` end in their unit (``_s``, ``_bytes``) unless they count."""

    status: Condition
    detail: str = ""
    values: dict[str, float] = {}


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One service as last seen; ``checks`` by name."""

    service: str
    status: Condition
    version: str
    uptime_s: float
    checks: dict[str, CheckResult]


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is the worst of the services."""

    status: Condition
    services: tuple[ServiceStatus, ...]


@contract(service="monitor", routes=("/api/v1/system/status",))
class Status(Protocol):
    """Aggregated health."""

    @user(Role.ADMIN, "system:read")
    async def status(self, caller: Caller) -> SystemStatus:
        """Ask every known service, each within two seconds; one that does not answer is ``down``."""
        ...
