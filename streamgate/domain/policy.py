"""Policies: who may watch, as a boolean expression over facts, evaluated with three values.

A document is JSON: ``{"v": 1, "expr": …, "options": {"ttl_s": 30, "finality": "latest"}}``. Nodes: ``any`` and ``all`` (lists),
``at_least`` (``{"k": 2, "of": […]}``), ``not`` (one). Leaves: ``allowlist``, ``time_window``, ``erc721``, ``erc20``,
``erc1155``, ``native``. Amounts and token ids are decimal strings.

Truth has three values, after Kleene: true, false, and None for "nobody knows". ``any`` is true when one part is, whatever
the others are; ``all`` is false when one part is; ``at_least`` is true when k parts are, and false when fewer than k can
still be; ``not`` of None is None. Only true grants.
"""

from __future__ import annotations

from streamgate.domain.policy_reader import (
    FINALITIES,
    LONGEST_TTL_S,
    MAX_ADDRESSES,
    MAX_DEPTH,
    MAX_LEAVES,
    MAX_TOKEN_IDS,
    MAX_TOKEN_IDS_OF_ALL,
    SHORTEST_TTL_S,
    parse,
)
from streamgate.domain.policy_rules import (
    AllOf,
    Allowlist,
    AnyOf,
    AtLeast,
    Erc20,
    Erc721,
    Erc1155,
    Holding,
    Leaf,
    Native,
    Node,
    Not,
    Policy,
    TimeWindow,
    Truth,
    at_least,
    evaluate,
)

__all__ = [
    "FINALITIES",
    "LONGEST_TTL_S",
    "MAX_ADDRESSES",
    "MAX_DEPTH",
    "MAX_LEAVES",
    "MAX_TOKEN_IDS",
    "MAX_TOKEN_IDS_OF_ALL",
    "SHORTEST_TTL_S",
    "AllOf",
    "Allowlist",
    "AnyOf",
    "AtLeast",
    "Erc20",
    "Erc721",
    "Erc1155",
    "Holding",
    "Leaf",
    "Native",
    "Node",
    "Not",
    "Policy",
    "TimeWindow",
    "Truth",
    "at_least",
    "evaluate",
    "parse",
]
