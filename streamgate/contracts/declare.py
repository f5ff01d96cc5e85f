"""How contracts, facts and signals are declared."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

import msgspec

from streamgate.domain.errors import ConfigurationError
from streamgate.domain.identity import SCOPES, Role

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


GROUP = "streamgate.contracts"
"""Entry-point group of the contracts that other packages bring."""

REST = "/{path}"
"""A template that ends so is the prefix of everything beneath it."""


class Declaration(msgspec.Struct, frozen=True):
    """What a contract says of itself: the service that owns it, its public route templates, and the service's HTTP port."""

    service: str
    routes: tuple[str, ...] = ()
    port: int | None = None


def contract(*, service: str, routes: tuple[str, ...] = (), port: int | None = None) -> Callable[[T], T]:
    """Mark a Protocol as the contract of ``service`` (its name with a hyphen).

    ``routes`` are the path templates, under the server's root, whose requests belong to that service; a gateway
    routes by them and knows nothing else of the plugin. A template that ends in `REST` stands for everything beneath.
    ``port``: where a service of another package answers, when it runs apart and nothing else is said; gRPC a thousand above.
    """

    def mark(kind: T) -> T:
        kind.__contract__ = Declaration(service, routes, port)  # type: ignore[attr-defined]
        return kind

    return mark


def declaration(kind: type) -> Declaration:
    """What `contract` recorded; `TypeError` if ``kind`` is no contract."""
    found = kind.__dict__.get("__contract__")
    if not isinstance(found, Declaration):
        raise TypeError(f"{kind.__qualname__} is not declared as a contract")
    return found


def contracts() -> tuple[type, ...]:
    """Every contract of this package."""
    package = __name__.rpartition(".")[0]
    modules = pkgutil.iter_modules(import_module(package).__path__, f"{package}.")
    kinds = [kind for module in modules for kind in vars(import_module(module.name)).values()]
    return tuple(dict.fromkeys(kind for kind in kinds if isinstance(kind, type) and "__contract__" in vars(kind)))


def declarations() -> tuple[Declaration, ...]:
    """What every contract of this package says of itself."""
    return tuple(dict.fromkeys(declaration(kind) for kind in contracts()))


def installed() -> tuple[type, ...]:
    """Every contract that other packages bring (entry points of `GROUP`).

    `ConfigurationError` for an entry point that cannot be imported or holds no contract, and for a contract of a service of
    this package's.
    """
    own = {found.service for found in declarations()}
    kinds = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            kind = point.load()
        except Exception as error:
            raise ConfigurationError(
                f"Contract {point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}."
            ) from error
        if not isinstance(kind, type) or "__contract__" not in vars(kind):
            raise ConfigurationError(f"Entry point {point.name!r} ({point.value}) is no contract.")
        if declaration(kind).service in own:
            raise ConfigurationError(f"The contract {point.value} is for {declaration(kind).service}, which is ours.")
        kinds.append(kind)
    return tuple(kinds)


def user(role: Role, scope: str | None = None) -> Callable[[F], F]:
    """Open a contract method to people whose role is at least ``role``; without it only services may call.

    ``scope`` (of `domain.identity.SCOPES`): what an API key that is narrowed needs to call it. None: such keys may not,
    unless the method is open to everybody.
    """
    if scope is not None and scope not in SCOPES:
        raise TypeError(f"there is no scope {scope!r}")

    def mark(method: F) -> F:
        method.__open_to__ = role  # type: ignore[attr-defined]
        method.__scope__ = scope  # type: ignore[attr-defined]
        return method

    return mark


def open_to(method: Callable[..., Any]) -> Role | None:
    """The least role that may call the method; None when only services may."""
    role: Role | None = getattr(method, "__open_to__", None)
    return role


def scope_of(method: Callable[..., Any]) -> str | None:
    """The scope that a narrowed API key needs for the method; None when none opens it."""
    scope: str | None = getattr(method, "__scope__", None)
    return scope


def has_open_methods(kind: type) -> bool:
    """Whether people may call anything of the contract."""
    return any(open_to(member) is not None for member in vars(kind).values() if callable(member))


def fact(subject: str) -> Callable[[T], T]:
    """Mark a Struct as a fact: announced through the outbox, delivered at least once. ``subject`` is ``owner.event``."""
    return _message("fact", subject)


def signal(subject: str) -> Callable[[T], T]:
    """Mark a Struct as a signal: a hint that may be lost; whoever listens also re-reads on a timer."""
    return _message("signal", subject)


def _message(kind_of: str, subject: str) -> Callable[[T], T]:
    def mark(kind: T) -> T:
        kind.__message__ = (kind_of, subject)  # type: ignore[attr-defined]
        return kind

    return mark


def subject_of(message: type | object) -> str:
    """The subject of a fact or signal (class or instance)."""
    kind = message if isinstance(message, type) else type(message)
    subject: str = kind.__dict__["__message__"][1]
    return subject


def is_fact(kind: type) -> bool:
    """True for a fact, False for a signal."""
    return bool(kind.__dict__["__message__"][0] == "fact")
