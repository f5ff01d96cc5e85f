"""Policies: what is read, what is refused and where, and three-valued truth."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.domain.errors import ValidationFailed
from streamgate.domain.policy import (
    AllOf,
    Allowlist,
    AnyOf,
    AtLeast,
    Erc20,
    Erc721,
    Erc1155,
    Native,
    Node,
    Not,
    TimeWindow,
    Truth,
    evaluate,
    parse,
)

ADDRESS = "0x" + "Aa" * 20
LIST = {"allowlist": {"addresses": [ADDRESS]}}
TICKET = {"erc721": {"chain": "eip155:1", "contract": ADDRESS, "min": "2"}}
COIN = {"erc20": {"chain": "eip155:1", "contract": ADDRESS, "min": "5"}}
ITEM = {"erc1155": {"chain": "eip155:1", "contract": ADDRESS, "token_id": "7", "min": "3"}}
WEI = {"native": {"chain": "eip155:1", "min": "1000000000000000000"}}
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


def test_amounts_are_asked_of_coins_items_and_the_chain_itself() -> None:
    policy = parse(document({"at_least": {"k": 2, "of": [COIN, ITEM, WEI]}}))
    at = "/expr/at_least/of"
    assert list(policy.leaves()) == [
        Erc20(f"{at}/0/erc20", "eip155:1", ADDRESS.lower(), 5),
        Erc1155(f"{at}/1/erc1155", "eip155:1", ADDRESS.lower(), 7, 3),
        Native(f"{at}/2/native", "eip155:1", 10**18),
    ]
    assert policy.root == AtLeast(2, tuple(policy.leaves()))


def ranged(begin: int, end: int, **more: Any) -> dict[str, Any]:
    return {
        "erc721": {"chain": "eip155:1", "contract": ADDRESS, "id_range": {"from": str(begin), "to": str(end)}, **more}
    }


def test_a_range_of_ids_includes_both_ends_and_may_lie_anywhere_in_uint256() -> None:
    for begin in (0, 10, 2**256 - 256):
        (leaf,) = parse(document(ranged(begin, begin + 255, min="256"))).leaves()
        assert isinstance(leaf, Erc721)
        assert (len(leaf.token_ids), leaf.token_ids[0], leaf.token_ids[-1]) == (256, begin, begin + 255)
    (leaf,) = parse(document(ranged(3, 3))).leaves()
    assert isinstance(leaf, Erc721)
    assert tuple(leaf.token_ids) == (3,)


def test_a_negated_holding_is_warned_of_and_a_doubly_negated_one_is_not() -> None:
    for holding in (TICKET, ranged(1, 2), COIN, ITEM, WEI):
        assert len(parse(document({"not": holding})).warnings()) == 1
        assert len(parse(document({"not": {"at_least": {"k": 1, "of": [LIST, holding]}}})).warnings()) == 1
    assert parse(document({"not": {"at_least": {"k": 1, "of": [LIST, WINDOW]}}})).warnings() == ()
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
    "a range beside ids": (document(ranged(1, 2, token_ids=["1"])), "/expr/erc721/id_range"),
    "a range that is none": (
        document({"erc721": {**TICKET["erc721"], "id_range": ["1", "2"]}}),
        "/expr/erc721/id_range",
    ),
    "a range without an end": (
        document({"erc721": {**TICKET["erc721"], "id_range": {"from": "1"}}}),
        "/expr/erc721/id_range/to",
    ),
    "a range that ends before it begins": (document(ranged(2, 1)), "/expr/erc721/id_range/to"),
    "a range that is too long": (document(ranged(0, 256)), "/expr/erc721/id_range"),
    "a range over everything": (document(ranged(0, 2**256 - 1)), "/expr/erc721/id_range"),
    "a range beyond uint256": (document(ranged(2**256 - 1, 2**256)), "/expr/erc721/id_range/to"),
    "more than the range allows": (document(ranged(1, 2, min="3")), "/expr/erc721/min"),
    "too many ids in all": (document({"any": [ranged(0, 255)] * 4 + [ranged(0, 0)]}), "/expr/any/4/erc721/id_range"),
    "a coin without an amount": (document({"erc20": {"chain": "eip155:1", "contract": ADDRESS}}), "/expr/erc20/min"),
    "a coin with decimals": (document({"erc20": {**COIN["erc20"], "min": "1.5"}}), "/expr/erc20/min"),
    "a coin of nowhere": (document({"erc20": {**COIN["erc20"], "chain": "solana:1"}}), "/expr/erc20/chain"),
    "a coin of ids": (document({"erc20": {**COIN["erc20"], "token_id": "1"}}), "/expr/erc20/token_id"),
    "no coin": (document({"erc20": []}), "/expr/erc20"),
    "an item without an id": (document({"erc1155": {**TICKET["erc721"]}}), "/expr/erc1155/token_id"),
    "an item of nothing": (document({"erc1155": {**ITEM["erc1155"], "min": "0"}}), "/expr/erc1155/min"),
    "an item of no contract": (document({"erc1155": {**ITEM["erc1155"], "contract": "x"}}), "/expr/erc1155/contract"),
    "wei without an amount": (document({"native": {"chain": "eip155:1"}}), "/expr/native/min"),
    "wei of a contract": (document({"native": {**WEI["native"], "contract": ADDRESS}}), "/expr/native/contract"),
    "at least none": (document({"at_least": {"k": 0, "of": [LIST]}}), "/expr/at_least/k"),
    "at least more than there are": (document({"at_least": {"k": 2, "of": [LIST]}}), "/expr/at_least/k"),
    "at least some text": (document({"at_least": {"k": "1", "of": [LIST]}}), "/expr/at_least/k"),
    "at least true": (document({"at_least": {"k": True, "of": [LIST]}}), "/expr/at_least/k"),
    "at least without rules": (document({"at_least": {"k": 1}}), "/expr/at_least/of"),
    "at least of nothing": (document({"at_least": {"k": 1, "of": []}}), "/expr/at_least/of"),
    "at least as a list": (document({"at_least": [LIST]}), "/expr/at_least"),
    "at least with more": (document({"at_least": {"k": 1, "of": [LIST], "x": 1}}), "/expr/at_least/x"),
    "a wrong part of at least": (document({"at_least": {"k": 1, "of": [LIST, {"vip": 1}]}}), "/expr/at_least/of/1/vip"),
    "too deep by at least": (
        document({"at_least": {"k": 1, "of": [deep(7)]}}),
        "/expr/at_least/of/0" + "/not" * 7,
    ),
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
        st.lists(inner, min_size=1, max_size=4).flatmap(
            lambda parts: st.integers(1, len(parts)).map(lambda k: AtLeast(k, tuple(parts)))
        ),
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
    if isinstance(node, AtLeast):
        return sum(classical(part, values) for part in node.parts) >= node.k
    return values[node]


def completions(node: Node, known: dict[Any, Truth]) -> set[bool]:
    """What the node is worth in every world that agrees with what is known."""
    unknown = [leaf for leaf, value in known.items() if value is None]
    outcomes = set()
    for mask in range(1 << len(unknown)):
        world = {leaf: bool(value) for leaf, value in known.items()}
        world |= {leaf: bool(mask >> index & 1) for index, leaf in enumerate(unknown)}
        outcomes.add(classical(node, world))
    return outcomes


@given(nodes, truths)
def test_an_answer_holds_whatever_the_unknown_turns_out_to_be(node: Node, given_truths: list[Truth]) -> None:
    known = dict(zip(LEAVES, given_truths, strict=True))
    answer = evaluate(node, lambda leaf: known[leaf])  # type: ignore[index]
    if answer is not None:
        assert completions(node, known) == {answer}
    if None not in given_truths:
        assert answer is not None


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=7), st.data())
def test_at_least_knows_exactly_what_can_be_known(given_truths: list[Truth], data: st.DataObject) -> None:
    leaves = [Allowlist(f"/{index}", frozenset()) for index in range(len(given_truths))]
    known = dict(zip(leaves, given_truths, strict=True))
    node = AtLeast(data.draw(st.integers(1, len(leaves))), tuple(leaves))
    outcomes = completions(node, known)
    answer = evaluate(node, lambda leaf: known[leaf])  # type: ignore[index]
    assert answer == (outcomes.pop() if len(outcomes) == 1 else None)


@given(truths)
def test_one_of_many_is_any_and_all_of_many_is_all(given_truths: list[Truth]) -> None:
    known = dict(zip(LEAVES, given_truths, strict=True))
    parts = tuple(LEAVES)
    for same in ((AtLeast(1, parts), AnyOf(parts)), (AtLeast(len(parts), parts), AllOf(parts))):
        first, second = (evaluate(node, lambda leaf: known[leaf]) for node in same)  # type: ignore[index]
        assert first == second


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
