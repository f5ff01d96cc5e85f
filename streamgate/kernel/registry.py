"""Finding plugins and putting them in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from typing import Any

from streamgate.domain.errors import ConfigurationError
from streamgate.kernel.plugin import Plugin

GROUP = "streamgate.plugins"
"""Entry-point group of built-in and third-party plugins alike."""

AnyPlugin = Plugin[Any]


def discover(names: Collection[str] | None = None) -> list[AnyPlugin]:
    """Every installed plugin (or those whose entry point is in ``names``), by name.

    Only what is asked for is imported. Raises `ConfigurationError` for an entry point that cannot be imported, is no
    `Plugin`, is registered under another name than its own, or takes a name that is taken.
    """
    found: dict[str, AnyPlugin] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if names is not None and point.name not in names:
            continue
        try:
            plugin = point.load()
        except Exception as error:
            raise ConfigurationError(
                f"Plugin {point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}."
            ) from error
        if not isinstance(plugin, Plugin):
            raise ConfigurationError(f"Entry point {point.name!r} ({point.value}) is not a streamgate.kernel.Plugin.")
        if plugin.name != point.name:
            raise ConfigurationError(f"Entry point {point.name!r} holds a plugin that calls itself {plugin.name!r}.")
        if plugin.name in found:
            raise ConfigurationError(f"Two installed plugins are named {plugin.name!r}.")
        found[plugin.name] = plugin
    return list(found.values())


def select(plugins: Sequence[AnyPlugin], name: str) -> AnyPlugin:
    """The plugin of that name; `ConfigurationError` listing what there is."""
    for plugin in plugins:
        if plugin.name == name:
            return plugin
    names = ", ".join(sorted(p.name for p in plugins)) or "none"
    raise ConfigurationError(f"There is no service {name!r}; installed are: {names}.")


def in_order(plugins: Sequence[AnyPlugin], given: Collection[type]) -> list[AnyPlugin]:
    """The plugins so that each stands after those that provide what it requires; ``given`` is there from the start.

    Raises `ConfigurationError` for two providers of one thing, a missing provider, or a cycle.
    """
    provider: dict[type, AnyPlugin] = {}
    for plugin in plugins:
        for kind in plugin.provides:
            if kind in provider or kind in given:
                other = provider[kind].name if kind in provider else "the process itself"
                raise ConfigurationError(f"{kind.__qualname__} is provided by both {other} and {plugin.name}.")
            provider[kind] = plugin
    by_name = {plugin.name: plugin for plugin in plugins}
    graph: dict[str, set[str]] = {}
    for plugin in plugins:
        before: set[str] = set()
        for kind in plugin.requires:
            if kind in provider:
                before.add(provider[kind].name)
            elif kind not in given:
                raise ConfigurationError(f"Plugin {plugin.name} requires {kind.__qualname__}, which nothing provides.")
        graph[plugin.name] = before
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        raise ConfigurationError(f"Plugins require each other in a circle: {' → '.join(error.args[1])}.") from error
