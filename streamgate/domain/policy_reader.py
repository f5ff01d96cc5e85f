"""Reading a policy's document: everything that is wrong with it, each by its place, before anything is believed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from streamgate.domain.clock import milliseconds
from streamgate.domain.errors import FieldError, ValidationFailed
from streamgate.domain.policy_rules import (
    AllOf,
    Allowlist,
    AnyOf,
    AtLeast,
    Erc20,
    Erc721,
    Erc1155,
    Leaf,
    Native,
    Node,
    Not,
    Policy,
    TimeWindow,
)

MAX_DEPTH = 8
MAX_LEAVES = 64
MAX_ADDRESSES = 10_000
MAX_TOKEN_IDS = 256
"""Token ids that one leaf may name, in a list or as a range: each is one question to the chain."""
MAX_TOKEN_IDS_OF_ALL = 1024
"""Token ids that all leaves of a policy may name together."""
SHORTEST_TTL_S = 1
LONGEST_TTL_S = 600
MOST_SEATS = 100
FINALITIES = ("latest", "safe", "finalized")

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")
_CHAIN = re.compile(r"eip155:[1-9][0-9]{0,15}\Z")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,77})\Z")


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
        self._leaves = 0
        self._token_ids = 0

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
        ttl_s, finality, seats = self._options(members.get("options", {}), f"{at}/options")
        return None if root is None else Policy(root, ttl_s, finality, seats)

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
            parts = self._parts(content, below, depth, base)
            return None if parts is None else AnyOf(parts) if name == "any" else AllOf(parts)
        if name == "at_least":
            return self._at_least(content, below, depth, base)
        if name == "not":
            inner = self.node(content, below, depth + 1, base)
            return None if inner is None else Not(inner)
        reader = _LEAVES.get(str(name))
        if reader is None:
            self.wrong(below, f"is no rule that this server knows; it knows: {', '.join(_NAMES)}")
            return None
        self._leaves += 1
        if self._leaves > MAX_LEAVES:
            self.wrong(below, f"is one rule too many: at most {MAX_LEAVES} are allowed")
            return None
        return reader(self, content, below, below.removeprefix(base))

    def _at_least(self, value: object, at: str, depth: int, base: str) -> Node | None:
        members = self._object(value, at, {"k", "of"})
        if members is None:
            return None
        parts = self._parts(members.get("of"), f"{at}/of", depth, base)
        k, most = members.get("k"), len(members["of"]) if isinstance(members.get("of"), list) else MAX_LEAVES
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= most:
            self.wrong(f"{at}/k", "must be a whole number from 1 to the number of rules in of")
            return None
        return None if parts is None else AtLeast(k, parts)

    def _parts(self, content: object, at: str, depth: int, base: str) -> tuple[Node, ...] | None:
        if not isinstance(content, list) or not content:
            self.wrong(at, "must be a list with at least one rule")
            return None
        if len(content) > MAX_LEAVES:
            self.wrong(at, f"must have at most {MAX_LEAVES} rules")
            return None
        parts = [self.node(part, f"{at}/{index}", depth + 1, base) for index, part in enumerate(content)]
        whole = tuple(part for part in parts if part is not None)
        return whole if len(whole) == len(parts) else None

    def allowlist(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"addresses"})
        if members is None:
            return None
        given = members.get("addresses")
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_ADDRESSES:
            self.wrong(f"{at}/addresses", f"must be a list of 1 to {MAX_ADDRESSES} addresses")
            return None
        for index, address in enumerate(given):
            self._address(address, f"{at}/addresses/{index}")
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
        members = self._object(value, at, {"chain", "contract", "min", "token_ids", "id_range"})
        if members is None:
            return None
        chain = self._chain(members.get("chain"), f"{at}/chain")
        contract = self._address(members.get("contract"), f"{at}/contract")
        minimum = self._minimum(members.get("min", "1"), f"{at}/min")
        ids: tuple[int, ...] | range = ()
        if "token_ids" in members and "id_range" in members:
            self.wrong(f"{at}/id_range", "must not stand beside token_ids")
        elif "token_ids" in members:
            ids = self._listed_ids(members["token_ids"], f"{at}/token_ids")
        elif "id_range" in members:
            ids = self._id_range(members["id_range"], f"{at}/id_range")
        if ids and minimum > len(ids):
            self.wrong(f"{at}/min", "must not be more than the number of tokens that are named")
        return Erc721(path, chain, contract, minimum, ids)

    def erc20(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"chain", "contract", "min"})
        if members is None:
            return None
        chain = self._chain(members.get("chain"), f"{at}/chain")
        contract = self._address(members.get("contract"), f"{at}/contract")
        return Erc20(path, chain, contract, self._minimum(members.get("min"), f"{at}/min"))

    def erc1155(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"chain", "contract", "token_id", "min"})
        if members is None:
            return None
        chain = self._chain(members.get("chain"), f"{at}/chain")
        contract = self._address(members.get("contract"), f"{at}/contract")
        token_id = self._decimal(members.get("token_id"), f"{at}/token_id") or 0
        return Erc1155(path, chain, contract, token_id, self._minimum(members.get("min", "1"), f"{at}/min"))

    def native(self, value: object, at: str, path: str) -> Leaf | None:
        members = self._object(value, at, {"chain", "min"})
        if members is None:
            return None
        chain = self._chain(members.get("chain"), f"{at}/chain")
        return Native(path, chain, self._minimum(members.get("min"), f"{at}/min"))

    def _listed_ids(self, given: object, at: str) -> tuple[int, ...]:
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_TOKEN_IDS:
            self.wrong(at, f"must be a list of 1 to {MAX_TOKEN_IDS} token ids")
            return ()
        ids = [self._decimal(token, f"{at}/{index}") for index, token in enumerate(given)]
        self._count_ids(len(ids), at)
        return tuple(dict.fromkeys(i or 0 for i in ids))

    def _id_range(self, given: object, at: str) -> tuple[int, ...] | range:
        members = self._object(given, at, {"from", "to"})
        if members is None:
            return ()
        first = self._decimal(members.get("from"), f"{at}/from")
        last = self._decimal(members.get("to"), f"{at}/to")
        if first is None or last is None:
            return ()
        if last < first:
            self.wrong(f"{at}/to", "must not be less than from")
            return ()
        if last - first >= MAX_TOKEN_IDS:
            self.wrong(at, f"must not hold more than {MAX_TOKEN_IDS} token ids: each is asked for on chain")
            return ()
        self._count_ids(last - first + 1, at)
        return range(first, last + 1)

    def _count_ids(self, number: int, at: str) -> None:
        self._token_ids += number
        if self._token_ids > MAX_TOKEN_IDS_OF_ALL:
            self.wrong(at, f"is too much: all rules together may name at most {MAX_TOKEN_IDS_OF_ALL} token ids")

    def _options(self, value: object, at: str) -> tuple[int | None, str, int | None]:
        members = self._object(value, at, {"ttl_s", "finality", "seats_per_token"}) or {}
        ttl_s = self._whole(members.get("ttl_s"), SHORTEST_TTL_S, LONGEST_TTL_S, f"{at}/ttl_s", "number of seconds")
        seats = self._whole(members.get("seats_per_token"), 1, MOST_SEATS, f"{at}/seats_per_token", "number")
        finality = members.get("finality", "latest")
        if finality not in FINALITIES:
            self.wrong(f"{at}/finality", f"must be one of: {', '.join(FINALITIES)}")
        return ttl_s, str(finality), seats

    def _whole(self, value: object, least: int, most: int, at: str, of_what: str) -> int | None:
        """A whole number within bounds; None when there is none, or a wrong one."""
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.wrong(at, f"must be a whole {of_what} from {least} to {most}")
            return None
        return value

    def _object(self, value: object, at: str, known: set[str]) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            self.wrong(at, "must be an object")
            return None
        for name in value:
            if name not in known:
                self.wrong(f"{at}/{_escaped(str(name))}", f"is unknown here; known are: {', '.join(sorted(known))}")
        return value

    def _chain(self, value: object, at: str) -> str:
        if not isinstance(value, str) or not _CHAIN.match(value):
            self.wrong(at, "must be a CAIP-2 id of an EVM chain, such as eip155:1")
        return str(value)

    def _address(self, value: object, at: str) -> str:
        if not isinstance(value, str) or not _ADDRESS.match(value):
            self.wrong(at, "must be an address: 0x and 40 hexadecimal digits")
        return str(value).lower()

    def _minimum(self, value: object, at: str) -> int:
        minimum = self._decimal(value, at)
        if minimum == 0:
            self.wrong(at, "must be at least 1: nothing would be asked for")
        return minimum or 1

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
    "erc20": _Reader.erc20,
    "erc1155": _Reader.erc1155,
    "native": _Reader.native,
}
_NAMES = ("any", "all", "at_least", "not", *_LEAVES)


def _escaped(name: str) -> str:
    """A member's name as part of a JSON pointer (RFC 6901 section 3)."""
    return name[:64].replace("~", "~0").replace("/", "~1")
