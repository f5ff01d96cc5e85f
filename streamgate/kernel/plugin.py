"""What a plugin is: a frozen value plus one async context manager. Before ``yield`` is start, after it is stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one health check: ``ok``, ``degraded`` or ``down``, a sentence for administrators, and what was measured.

    The names of ``values`` end in their unit (``_s``, ``_bytes``) unless they count.
    """

    status: str
    detail: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


class Health(Protocol):
    """Answers within two seconds, by name of the check."""

    def __call__(self) -> Awaitable[Mapping[str, Check]]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a started plugin gives to the process it runs in."""

    provides: Mapping[type, object] = field(default_factory=dict)
    """Contract → its implementation; exactly what the plugin's ``provides`` names."""

    routes: Sequence[Any] = ()
    """Litestar controllers and route handlers."""

    mounts: Mapping[str, Any] = field(default_factory=dict)
    """Path prefix (``/p/``) → raw ASGI app that answers everything under it.

    An app may have a method ``at_once(path: bytes) -> tuple[bytes, bytes] | None``: head and body of the answer to a plain
    GET, when it can be given without waiting; the connection then sends it without calling the app.
    """

    middleware: Sequence[Callable[[Any], Any]] = ()
    """Wrappers of the whole ASGI app of the process, the first one innermost."""

    listens: Mapping[type, Callable[[Any], Awaitable[None]]] = field(default_factory=dict)
    """Fact or signal class → receiver. Facts may come more than once; a receiver that raises gets its fact again."""

    forwards: Mapping[type, Any] = field(default_factory=dict)
    """Contract of another service → the door before it: where this process has a port for calls, those of methods that are
    open to people are passed on to their service."""

    health: Health | None = None
    """The plugin's own checks."""


class Context(Generic[S]):
    """What a plugin gets at start: its settings, and what it requires."""

    def __init__(self, name: str, settings: S, needs: Mapping[type, object], draining: asyncio.Event) -> None:
        self.name = name
        self.settings = settings
        self.draining = draining
        """Set when the process begins to stop: take no new work, finish or hand over what is in flight."""
        self._needs = needs

    def need(self, kind: type[T]) -> T:
        """The provider of a contract or port that the plugin's ``requires`` names; `LookupError` for any other."""
        try:
            return self._needs[kind]  # type: ignore[return-value]
        except KeyError:
            raise LookupError(
                f"plugin {self.name} asks for {kind.__qualname__}, which its `requires` does not name"
            ) from None


@dataclass(frozen=True, slots=True)
class Plugin(Generic[S]):
    """How a plugin is declared. ``name`` is the service name (with a hyphen); its settings section has an underscore."""

    name: str
    settings: type[S]
    setup: Callable[[Context[S]], AbstractAsyncContextManager[Parts]]
    requires: tuple[type, ...] = ()
    provides: tuple[type, ...] = ()

    @property
    def section(self) -> str:
        """The name of the plugin's section in the settings."""
        return self.name.replace("-", "_")
