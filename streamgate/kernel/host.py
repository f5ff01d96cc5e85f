"""Starting and stopping plugins, in order, with time limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from streamgate.domain.errors import ConfigurationError
from streamgate.kernel.binding import Binding, check_contract
from streamgate.kernel.plugin import Context, Parts
from streamgate.kernel.registry import AnyPlugin, in_order


@dataclass(frozen=True, slots=True)
class Assembled:
    """The started plugins, in the order they started: name → parts; and every bound provider."""

    parts: Mapping[str, Parts]
    bound: Mapping[type, Any]


class Host:
    """Runs a set of plugins in this process.

    ``settings``: plugin name → its settings value. ``given``: what the process itself provides (ports and runtime
    services), by type. ``bind``: how contracts are bound. ``start_timeout_s`` and ``stop_timeout_s`` are per plugin.
    """

    def __init__(
        self,
        plugins: Sequence[AnyPlugin],
        *,
        settings: Mapping[str, object],
        given: Mapping[type, object],
        bind: Binding,
        draining: asyncio.Event,
        start_timeout_s: float = 30.0,
        stop_timeout_s: float = 20.0,
    ) -> None:
        self._plugins = in_order(plugins, given.keys())
        for plugin in self._plugins:
            for kind in plugin.provides:
                check_contract(kind)
        self._settings = settings
        self._given = given
        self._bind = bind
        self._draining = draining
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Assembled]:
        """Start every plugin, run the block, stop them in the opposite order. A failed start stops what had started."""
        bound: dict[type, Any] = dict(self._given)
        parts: dict[str, Parts] = {}
        async with AsyncExitStack() as stack:
            for plugin in self._plugins:
                context = Context(
                    plugin.name,
                    self._settings[plugin.name],
                    {kind: bound[kind] for kind in plugin.requires},
                    self._draining,
                )
                manager = plugin.setup(context)
                try:
                    async with asyncio.timeout(self._start_timeout_s):
                        made = await manager.__aenter__()
                except TimeoutError:
                    raise ConfigurationError(
                        f"Plugin {plugin.name} did not start within {self._start_timeout_s:.0f} s."
                    ) from None
                stack.push_async_exit(_Stop(manager, self._stop_timeout_s))
                if set(made.provides) != set(plugin.provides):
                    raise ConfigurationError(f"Plugin {plugin.name} does not provide exactly what it declares.")
                for kind, provider in made.provides.items():
                    check_contract(kind, provider)
                    bound[kind] = self._bind(kind, provider)
                parts[plugin.name] = made
            yield Assembled(parts, bound)


class _Stop:
    """Leaves a plugin's context manager within a time limit, so that one that hangs cannot hold up the others."""

    def __init__(self, manager: Any, timeout_s: float) -> None:
        self._manager, self._timeout_s = manager, timeout_s

    async def __call__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        async with asyncio.timeout(self._timeout_s):
            result: bool | None = await self._manager.__aexit__(kind, error, trace)
            return result
