"""Policies: who may watch, as a boolean expression over facts, evaluated with three values.

A document is JSON: ``{"v": 1, "expr": …, "options": {"ttl_s": 30, "finality": "latest"}}``. Nodes: ``any`` and ``all`` (lists),
``not`` (one). Leaves: ``allowlist``, ``time_window``, ``erc721``. Amounts and token ids are decimal strings.

Truth has three values, after Kleene: true, false, and None for "nobody knows". ``any`` is true when one part is, whatever
the others are; ``all`` is false when one part is; ``not`` of None is None. Only true grants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamgate.domain.clock import milliseconds
from streamgate.domain.errors import FieldError, ValidationFailed

MAX_DEPTH = 8
MAX_LEAVES = 64
MAX_ADDRESSES = 10_000
MAX_TOKEN_IDS = 256
SHORTEST_TTL_S = 1
LONGEST_TTL_S = 600
FINALITIES = ("latest", "safe", "finalized")

Truth = bool | None

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_CHAIN = re.compile(r"eip155:[1-9][0-9]{0,15}\Z")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,77})\Z")


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
    """True for a wallet with at least ``minimum`` tokens of the contract, of these ids only when ``token_ids`` are named."""

    path: str
    chain: str
    contract: str
    minimum: int
    token_ids: tuple[int, ...]


Leaf = Allowlist | TimeWindow | Erc721


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when one part is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """True when every part is."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the part is false."""

    part: Node


Node = AnyOf | AllOf | Not | Leaf


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed document. ``ttl_s`` None: the installation's default. ``finality``: which block is read."""

    root: Node
    ttl_s: int | None
    finality: str

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
    if isinstance(node, AnyOf | AllOf):
        values = [evaluate(part, truth) for part in node.parts]
        decisive = isinstance(node, AnyOf)
        if decisive in values:
            return decisive
        return None if None in values else not decisive
    return truth(node)


def parse(document: object, pointer: str = "") -> Policy:
    """Read a document. Raises `ValidationFailed` naming every wrong member by JSON pointer, each below ``pointer``."""
    reader = _Reader()
    found = reader.document(document, pointer)
    if reader.errors or found is None:
        raise ValidationFailed("The policy is not valid; see errors.", errors=tuple(reader.errors))
    return found


class _Reader:
    """Reads a document and collects everything that is wrong with it, up to a limit."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._count = 0

    def wrong(self, at: str, why: str) -> None:
        if len(self.errors) < 20:
            self.errors.append(FieldError(at, why))

    def document(self, value: object, at: str) -> Policy | None:
        members = self._object(value, at, {"v", "expr", "options"})
        if members is None:
            return None
        if members.get("v") != 1 or isinstance(members.get("v"), bool):
            self.wrong(f"{at}/v", "must be 1")
        if "expr" not in members:
            self.wrong(f"{at}/expr", "is missing: it says who may watch")
            return None
        root = self.node(members["expr"], f"{at}/expr", 1, at)
        ttl_s, finality = self._options(members.get("options", {}), f"{at}/options")
        return None if root is None else Policy(root, ttl_s, finality)

    def node(self, value: object, at: str, depth: int, base: str) -> Node | None:
        if depth > MAX_DEPTH:
            self.wrong(at, f"is nested deeper than {MAX_DEPTH}")
            return None
        if not isinstance(value, dict) or len(value) != 1:
            self.wrong(at, f"must be an object with exactly one member, one of: {', '.join(_NAMES)}")
            return None
        (name, content), *_ = value.items()
        below = f"{at}/{_escaped(str(name))}"
        if name in {"any", "all"}:
            return self._group(str(name), content, below, depth, base)
        if name == "not":
            inner = self.node(content, below, depth + 1, base)
            return None if inner is None else Not(inner)
        reader = _LEAVES.get(str(name))
        if reader is None:
            self.wrong(below, f"is no rule that this server knows; it knows: {', '.join(_NAMES)}")
            return None
        self._count += 1
        if self._count > MAX_LEAVES:
            self.wrong(below, f"is one rule too many: at most {MAX_LEAVES} are allowed")
            return None
        return reader(self, content, below, below.removeprefix(base))

    def _group(self, name: str, content: object, at: str, depth: int, base: str) -> Node | None:
        if not isinstance(content, list) or not content:
            self.wrong(at, "must be a list with at least one rule")
            return None
        if len(content) > MAX_LEAVES:
            self.wrong(at, f"must have at most {MAX_LEAVES} rules")
            return None
        parts = [self.node(part, f"{at}/{index}", depth + 1, base) for index, part in enumerate(content)]
        whole = tuple(part for part in parts if part is not None)
        if len(whole) != len(parts):
            return None
        return AnyOf(whole) if name == "any" else AllOf(whole)

    def allowlist(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"addresses"})
        if members is None:
            return None
        given = members.get("addresses")
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_ADDRESSES:
            self.wrong(f"{at}/addresses", f"must be a list of 1 to {MAX_ADDRESSES} addresses")
            return None
        for index, address in enumerate(given):
            if not isinstance(address, str) or not _ADDRESS.match(address):
                self.wrong(f"{at}/addresses/{index}", "must be an address: 0x and 40 hexadecimal digits")
        return Allowlist(path, frozenset(str(address).lower() for address in given))

    def time_window(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"from", "until"})
        if members is None:
            return None
        begin = self._moment(members.get("from"), f"{at}/from")
        end = self._moment(members.get("until"), f"{at}/until")
        if members.get("from") is None and members.get("until") is None:
            self.wrong(at, "must have from, until, or both")
        if begin is not None and end is not None and begin >= end:
            self.wrong(f"{at}/until", "must be later than from")
        return TimeWindow(path, begin, end)

    def erc721(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"chain", "contract", "min", "token_ids"})
        if members is None:
            return None
        chain, contract = members.get("chain"), members.get("contract")
        if not isinstance(chain, str) or not _CHAIN.match(chain):
            self.wrong(f"{at}/chain", "must be a CAIP-2 id of an EVM chain, such as eip155:1")
        if not isinstance(contract, str) or not _ADDRESS.match(contract):
            self.wrong(f"{at}/contract", "must be an address: 0x and 40 hexadecimal digits")
        minimum = self._decimal(members.get("min", "1"), f"{at}/min")
        if minimum == 0:
            self.wrong(f"{at}/min", "must be at least 1: nothing would be asked for")
        given = members.get("token_ids", [])
        if not isinstance(given, list) or len(given) > MAX_TOKEN_IDS or ("token_ids" in members and not given):
            self.wrong(f"{at}/token_ids", f"must be a list of 1 to {MAX_TOKEN_IDS} token ids")
            given = []
        ids = [self._decimal(token, f"{at}/token_ids/{index}") for index, token in enumerate(given)]
        if ids and minimum and minimum > len(set(ids)):
            self.wrong(f"{at}/min", "must not be more than the number of token_ids")
        return Erc721(path, str(chain), str(contract).lower(), minimum or 1, tuple(dict.fromkeys(i or 0 for i in ids)))

    def _options(self, value: object, at: str) -> tuple[int | None, str]:
        members = self._object(value, at, {"ttl_s", "finality"}) or {}
        ttl_s = members.get("ttl_s")
        if ttl_s is not None and (
            not isinstance(ttl_s, int) or isinstance(ttl_s, bool) or not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S
        ):
            self.wrong(f"{at}/ttl_s", f"must be a whole number of seconds from {SHORTEST_TTL_S} to {LONGEST_TTL_S}")
            ttl_s = None
        finality = members.get("finality", "latest")
        if finality not in FINALITIES:
            self.wrong(f"{at}/finality", f"must be one of: {', '.join(FINALITIES)}")
        return ttl_s, str(finality)

    def _object(self, value: object, at: str, known: set[str]) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.wrong(at, "must be an object")
            return None
        for name in value:
            if name not in known:
                self.wrong(f"{at}/{_escaped(str(name))}", f"is unknown here; known are: {', '.join(sorted(known))}")
        return value

    def _decimal(self, value: object, at: str) -> int | None:
        if not isinstance(value, str) or not _DECIMAL.match(value) or int(value) >= 1 << 256:
            self.wrong(at, 'must be a decimal number in a string, such as "1"')
            return None
        return int(value)

    def _moment(self, value: object, at: str) -> int | None:
        if value is None:
            return None
        try:
            if not isinstance(value, str) or len(value) > 40:
                raise ValueError
            return milliseconds(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            self.wrong(at, "must be a time with a zone (RFC 3339), such as 2026-01-01T00:00:00Z, or null")
            return None


_LEAVES: dict[str, Callable[[_Reader, object, str, str], Leaf | None]] = {
    "allowlist": _Reader.allowlist,
    "time_window": _Reader.time_window,
    "erc721": _Reader.erc721,
}
_NAMES = ("any", "all", "not", *_LEAVES)


def _escaped(name: str) -> str:
    """A member's name as part of a JSON pointer (RFC 6901 section 3)."""
    return name[:64].replace("~", "~0").replace("/", "~1")


def _leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Not):
        yield from _leaves(node.part)
    elif isinstance(node, AnyOf | AllOf):
        for part in node.parts:
            yield from _leaves(part)
    else:
        yield node


def _negates_ownership(node: Node, *, negated: bool) -> bool:
    if isinstance(node, Not):
        return _negates_ownership(node.part, negated=not negated)
    if isinstance(node, AnyOf | AllOf):
        return any(_negates_ownership(part, negated=negated) for part in node.parts)
    return negated and isinstance(node, Erc721)
