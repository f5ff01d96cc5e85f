"""Modules that are imported when something of them is first used.

Plugins name the types of `runtime` in what they require, and naming them must not load the SQL library: a process that
only lists plugins, or runs those that need no database, never does.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """Stands for the module of that name. For the type checker import the module itself under ``TYPE_CHECKING``."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self.__name__), attribute)
