"""Health of this process: the checks of its parts, and the worst of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from streamgate.domain.clock import Clock
from streamgate.kernel.plugin import Check, Health

ORDER = ("ok", "degraded", "down")
CHECK_TIMEOUT_S = 2.0


class HealthBoard:
    """Collects the checks of the process as its parts start; answers for all of them at once."""

    def __init__(self, service: str, version: str, clock: Clock) -> None:
        self.service = service
        self.version = version
        self._clock = clock
        self._since = clock.monotonic()
        self._checks: dict[str, Health] = {}

    def add(self, name: str, health: Health) -> None:
        """Ask ``health`` too; its checks appear as ``<name>`` or ``<name>.<check>``."""
        self._checks[name] = health

    @property
    def uptime_s(self) -> float:
        """Seconds since the process began to start."""
        return self._clock.monotonic() - self._since

    async def checks(self) -> dict[str, Check]:
        """Every check, asked side by side, each within two seconds; one that hangs or raises is ``down``."""
        answers = await asyncio.gather(*(self._ask(name, health) for name, health in self._checks.items()))
        return {name: check for answer in answers for name, check in answer.items()}

    async def _ask(self, name: str, health: Health) -> Mapping[str, Check]:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                found = await health()
        except TimeoutError:
            return {name: Check("down", "no answer within two seconds")}
        except Exception as error:  # noqa: BLE001 (a check that fails in any way says: down)
            return {name: Check("down", type(error).__name__)}
        return {name if check == "" else f"{name}.{check}": value for check, value in found.items()}


def worst(checks: Mapping[str, Check]) -> str:
    """``ok`` when every check is, else the worst status among them."""
    return max((check.status for check in checks.values()), key=ORDER.index, default="ok")


class Answers(Protocol):
    """Something outside the process that can be asked whether it answers."""

    async def healthy(self) -> bool:
        """Whether it answers now."""
        ...


def reachable(outside: Answers) -> Health:
    """The check of something that nothing works without: ``down`` while it does not answer."""

    async def health() -> dict[str, Check]:
        return {"": Check("ok") if await outside.healthy() else Check("down", "it does not answer")}

    return health


def helpful(outside: Answers) -> Health:
    """The check of something that everything works without, only slower or less exactly: ``degraded`` while it is away."""

    async def health() -> dict[str, Check]:
        return {"": Check("ok") if await outside.healthy() else Check("degraded", "it does not answer")}

    return health
