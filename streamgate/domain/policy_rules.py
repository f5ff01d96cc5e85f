"""The values of a policy: its leaves, the nodes that combine them, and what the whole is worth given its leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

Truth = bool | None


@dataclass(frozen=True, slots=True)
class Allowlist:
    """True for a wallet of the list. ``addresses``: EVM addresses in lower case."""

    path: str
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """True from ``from_ms`` (included) until ``until_ms`` (excluded), in ms since the epoch; None: no bound."""

    path: str
    from_ms: int | None
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class Erc721:
    """True for a wallet with at least ``minimum`` tokens of the contract, of these ids only when ``token_ids`` are named.

    ``token_ids``: distinct ids; a range where the document names one; empty: whichever.
    """

    path: str
    chain: str
    contract: str
    minimum: int
    token_ids: tuple[int, ...] | range


@dataclass(frozen=True, slots=True)
class Erc20:
    """True for a wallet with at least ``minimum`` of the token, in its smallest unit (decimals are not asked for)."""

    path: str
    chain: str
    contract: str
    minimum: int


@dataclass(frozen=True, slots=True)
class Erc1155:
    """True for a wallet with at least ``minimum`` of the token ``token_id`` of the contract."""

    path: str
    chain: str
    contract: str
    token_id: int
    minimum: int


@dataclass(frozen=True, slots=True)
class Native:
    """True for a wallet with at least ``minimum`` of the chain's own coin, in its smallest unit (wei)."""

    path: str
    chain: str
    minimum: int


Holding = Erc721 | Erc20 | Erc1155 | Native
"""Leaves that ask a chain what a wallet holds."""

Leaf = Allowlist | TimeWindow | Holding


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when one part is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every part is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AtLeast:
    """True when ``k`` parts are, 1 <= k <= number of parts. A part that is written twice counts twice."""

    k: int
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the part is false."""

    part: Node


Node = AnyOf | AllOf | AtLeast | Not | Leaf


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed document. ``ttl_s`` None: the installation's default. ``finality``: which block is read.

    ``seats_per_token``: how many may watch at a time with one ERC-721 token, which viewers then name; None: any number.
    """

    root: Node
    ttl_s: int | None
    finality: str
    seats_per_token: int | None = None

    def leaves(self) -> Iterator[Leaf]:
        """Every leaf, in the order of the document."""
        yield from _leaves(self.root)

    def warnings(self) -> tuple[str, ...]:
        """What its author should know although it is allowed."""
        if _negates_ownership(self.root, negated=False):
            return (
                "A rule that asks for *not* holding a token can be evaded by moving the token to another wallet before signing in.",
            )
        return ()


def evaluate(node: Node, truth: Callable[[Leaf], Truth]) -> Truth:
    """The value of the expression, given those of its leaves."""
    if isinstance(node, Not):
        inner = evaluate(node.part, truth)
        return None if inner is None else not inner
    if isinstance(node, AnyOf | AllOf | AtLeast):
        values = [evaluate(part, truth) for part in node.parts]
        needed = node.k if isinstance(node, AtLeast) else 1 if isinstance(node, AnyOf) else len(values)
        return at_least(needed, values.count(True), values.count(None))
    return truth(node)


def at_least(needed: int, sure: int, unknown: int) -> Truth:
    """Whether ``needed`` are reached: true when ``sure`` ones suffice, false when the ``unknown`` ones could not help."""
    if sure >= needed:
        return True
    return False if sure + unknown < needed else None


def _leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Not):
        yield from _leaves(node.part)
    elif isinstance(node, AnyOf | AllOf | AtLeast):
        for part in node.parts:
            yield from _leaves(part)
    else:
        yield node


def _negates_ownership(node: Node, *, negated: bool) -> bool:
    if isinstance(node, Not):
        return _negates_ownership(node.part, negated=not negated)
    if isinstance(node, AnyOf | AllOf | AtLeast):
        return any(_negates_ownership(part, negated=negated) for part in node.parts)
    return negated and isinstance(node, Holding)
