"""How contracts, facts and signals are declared."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import msgspec

from streamgate.domain.identity import Role

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


REST = "/{path}"
"""A template that ends so is the prefix of everything beneath it."""


class Declaration(msgspec.Struct, frozen=True):
    """What a contract says of itself: the service that owns it and its public route templates."""

    service: str
    routes: tuple[str, ...] = ()


def contract(*, service: str, routes: tuple[str, ...] = ()) -> Callable[[T], T]:
    """Mark a Protocol as the contract of ``service`` (its name with a hyphen).

    ``routes`` are the path templates, under the server's root, whose requests belong to that service; a gateway
    routes by them and knows nothing else of the plugin. A template that ends in `REST` stands for everything beneath.
    """

    def mark(kind: T) -> T:
        kind.__contract__ = Declaration(service, routes)  # type: ignore[attr-defined]
        return kind

    return mark


def declaration(kind: type) -> Declaration:
    """What `contract` recorded; `TypeError` if ``kind`` is no contract."""
    found = kind.__dict__.get("__contract__")
    if not isinstance(found, Declaration):
        raise TypeError(f"{kind.__qualname__} is not declared as a contract")
    return found


def declarations() -> tuple[Declaration, ...]:
    """What every contract of this package says of itself."""
    package = __name__.rpartition(".")[0]
    modules = pkgutil.iter_modules(import_module(package).__path__, f"{package}.")
    kinds = [kind for module in modules for kind in vars(import_module(module.name)).values()]
    found = [vars(kind).get("__contract__") for kind in kinds if isinstance(kind, type)]
    return tuple(dict.fromkeys(each for each in found if isinstance(each, Declaration)))


def user(role: Role) -> Callable[[F], F]:
    """Open a contract method to people whose role is at least ``role``; without it only services may call."""

    def mark(method: F) -> F:
        method.__open_to__ = role  # type: ignore[attr-defined]
        return method

    return mark


def open_to(method: Callable[..., Any]) -> Role | None:
    """The least role that may call the method; None when only services may."""
    role: Role | None = getattr(method, "__open_to__", None)
    return role


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
