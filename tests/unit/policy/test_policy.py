"""Policies: what is read, what is refused and where, and three-valued truth."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.domain.errors import ValidationFailed
from streamgate.domain.policy import AllOf, Allowlist, AnyOf, Erc721, Node, Not, TimeWindow, Truth, evaluate, parse

ADDRESS = "0x" + "Aa" * 20
LIST = {"allowlist": {"addresses": [ADDRESS]}}
TICKET = {"erc721": {"chain": "eip155:1", "contract": ADDRESS, "min": "2"}}
WINDOW = {"time_window": {"from": "2026-01-01T00:00:00Z", "until": None}}


def document(expr: Any, **options: Any) -> dict[str, Any]:
    return {"v": 1, "expr": expr} | ({"options": options} if options else {})


def test_a_document_is_read() -> None:
    policy = parse(document({"any": [LIST, {"all": [TICKET, {"not": WINDOW}]}]}, ttl_s=10, finality="safe"))
    assert (policy.ttl_s, policy.finality) == (10, "safe")
    assert list(policy.leaves()) == [
        Allowlist("/expr/any/0/allowlist", frozenset({ADDRESS.lower()})),
        Erc721("/expr/any/1/all/0/erc721", "eip155:1", ADDRESS.lower(), 2, ()),
        TimeWindow("/expr/any/1/all/1/not/time_window", 1767225600000, None),
    ]
    assert policy.warnings() == ()


def test_a_negated_holding_is_warned_of_and_a_doubly_negated_one_is_not() -> None:
    assert len(parse(document({"not": TICKET})).warnings()) == 1
    assert len(parse(document({"all": [LIST, {"not": {"any": [TICKET]}}]})).warnings()) == 1
    assert parse(document({"not": {"not": TICKET}})).warnings() == ()


def deep(levels: int) -> Any:
    return LIST if levels == 0 else {"not": deep(levels - 1)}


WRONG = {
    "no object": ([], ""),
    "no expression": ({"v": 1}, "/expr"),
    "another version": ({"v": 2, "expr": LIST}, "/v"),
    "a true version": ({"v": True, "expr": LIST}, "/v"),
    "an unknown member": ({"v": 1, "expr": LIST, "more": 1}, "/more"),
    "an unknown rule": (document({"vip": {}}), "/expr/vip"),
    "two rules in one": (document(LIST | TICKET), "/expr"),
    "an empty any": (document({"any": []}), "/expr/any"),
    "an empty all": (document({"all": []}), "/expr/all"),
    "an address that is none": (document({"allowlist": {"addresses": ["0x12"]}}), "/expr/allowlist/addresses/0"),
    "an empty list": (document({"allowlist": {"addresses": []}}), "/expr/allowlist/addresses"),
    "an unknown member of a rule": (document({"allowlist": {"addresses": [ADDRESS], "x": 1}}), "/expr/allowlist/x"),
    "a chain that is none": (document({"erc721": {"chain": "1", "contract": ADDRESS}}), "/expr/erc721/chain"),
    "a contract that is none": (document({"erc721": {"chain": "eip155:1", "contract": 1}}), "/expr/erc721/contract"),
    "a number that is no text": (document({"erc721": {**TICKET["erc721"], "min": 1}}), "/expr/erc721/min"),
    "a minimum of nothing": (document({"erc721": {**TICKET["erc721"], "min": "0"}}), "/expr/erc721/min"),
    "a number beyond uint256": (document({"erc721": {**TICKET["erc721"], "min": str(2**256)}}), "/expr/erc721/min"),
    "more than the ids allow": (document({"erc721": {**TICKET["erc721"], "token_ids": ["1"]}}), "/expr/erc721/min"),
    "no ids": (document({"erc721": {**TICKET["erc721"], "token_ids": []}}), "/expr/erc721/token_ids"),
    "a window without bounds": (document({"time_window": {}}), "/expr/time_window"),
    "a window that ends before it begins": (
        document({"time_window": {"from": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}}),
        "/expr/time_window/until",
    ),
    "a time without a zone": (document({"time_window": {"from": "2026-01-01T00:00:00"}}), "/expr/time_window/from"),
    "too deep": (document(deep(8)), "/expr" + "/not" * 8),
    "too many rules": (document({"any": [{"any": [LIST] * 33}, {"any": [LIST] * 33}]}), "/expr/any/1/any/31/allowlist"),
    "too many parts": (document({"any": [LIST] * 65}), "/expr/any"),
    "a ttl beyond its bounds": (document(LIST, ttl_s=0), "/options/ttl_s"),
    "a ttl that is no number": (document(LIST, ttl_s="30"), "/options/ttl_s"),
    "an unknown finality": (document(LIST, finality="soon"), "/options/finality"),
    "a name that needs escaping": (document({"a/b~": {}}), "/expr/a~1b~0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_by_its_place(name: str) -> None:
    wrong, pointer = WRONG[name]
    with pytest.raises(ValidationFailed) as refused:
        parse(wrong, "/document")
    assert refused.value.errors[0].pointer == "/document" + pointer


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert len(list(parse(document(deep(7))).leaves())) == 1
    assert len(list(parse(document({"any": [LIST] * 64})).leaves())) == 64


LEAVES = [Allowlist(f"/{index}", frozenset()) for index in range(4)]
nodes: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts))),
    ),
    max_leaves=12,
)
truths = st.lists(st.sampled_from([True, False, None]), min_size=4, max_size=4)


def classical(node: Node, values: dict[Any, bool]) -> bool:
    if isinstance(node, Not):
        return not classical(node.part, values)
    if isinstance(node, AnyOf):
        return any(classical(part, values) for part in node.parts)
    if isinstance(node, AllOf):
        return all(classical(part, values) for part in node.parts)
    return values[node]


@given(nodes, truths)
def test_an_answer_holds_whatever_the_unknown_turns_out_to_be(node: Node, given_truths: list[Truth]) -> None:
    known = dict(zip(LEAVES, given_truths, strict=True))
    answer = evaluate(node, lambda leaf: known[leaf])  # type: ignore[index]
    unknown = [leaf for leaf in LEAVES if known[leaf] is None]
    outcomes = set()
    for mask in range(1 << len(unknown)):
        world = {leaf: bool(value) for leaf, value in known.items()}
        world |= {leaf: bool(mask >> index & 1) for index, leaf in enumerate(unknown)}
        outcomes.add(classical(node, world))
    if answer is not None:
        assert outcomes == {answer}
    if not unknown:
        assert answer is not None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_json_raises_anything_but_a_refusal(value: Any) -> None:
    for wrong in (
        value,
        {"v": 1, "expr": value},
        {"v": 1, "expr": {"any": [value]}},
        {"v": 1, "expr": LIST, "options": value},
    ):
        with suppress(ValidationFailed):
            assert list(parse(wrong).leaves())
