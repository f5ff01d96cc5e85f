"""Many reads at once: one call where Multicall3 is, a batch where it is not, and nothing believed of who answers wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from eth_abi import decode as abi_decode
from eth_abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from streamgate.adapters import chain_jsonrpc, multicall3
from streamgate.adapters.chain_jsonrpc import ABSENT_S, JsonRpcChains
from streamgate.domain.errors import ChainUnavailable
from streamgate.plugins.auth.chain_reads import BALANCE_OF, BALANCE_OF_ID, OWNER_OF, word
from streamgate.ports.chain import Answer, Balance, Call, Head, Read, Returned, Reverted, Unread
from tests.support.chain import CHAIN, MULTICALL3, Chain, anvil
from tests.support.clock import FakeClock
from tests.support.rpc import Relay, endpoint, relay, single

BLOCK = {"number": "0x5", "hash": "0x" + "05" * 32, "timestamp": "0x1"}
READS: list[Read] = [Call(b"\x01" * 20, b"\x0a" * 5), Balance(b"\x02" * 20), Call(b"\x03" * 20, b"")]
HONEST = [Returned(word(1)), Returned(word(2)), Reverted(b"")]


def raw(address: str) -> bytes:
    return bytes.fromhex(address[2:])


class Peer:
    """An endpoint that is honest but for what a test replaces. ``asked``: what it got; ``code``: it shows Multicall3."""

    def __init__(self, *, code: bool, **instead: Callable[[Any], Any]) -> None:
        self.code = code
        self.instead = instead
        self.asked: list[Any] = []

    def __call__(self, body: Any) -> Any:
        self.asked.append(body)
        if isinstance(body, list):
            return self.instead.get("batch", self.batch)(body)
        if is_aggregate(body):
            return self.instead.get("aggregate", self.aggregate)(body)
        return self.instead.get("alone", self.alone)(body)

    def alone(self, body: Any) -> Any:
        answer = self.object(body)
        return answer["result"] if "result" in answer else web.json_response(answer)

    def batch(self, body: Any) -> Any:
        return [self.object(item) for item in body]

    def aggregate(self, body: Any) -> Any:
        return "0x" + abi_encode(["(bool,bytes)[]"], [[(True, word(1)), (True, word(2)), (False, b"")]]).hex()

    def object(self, body: Any) -> dict[str, Any]:
        if body["method"] == "eth_call" and body["params"][0]["to"] == "0x" + "03" * 20:
            return {"jsonrpc": "2.0", "id": body["id"], "error": {"code": 3, "message": "execution reverted"}}
        known = {
            "eth_chainId": "0x7a69",
            "eth_getBlockByNumber": BLOCK,
            "eth_getCode": "0x60" if self.code else "0x",
            "eth_call": "0x" + word(1).hex(),
            "eth_getBalance": "0x2",
        }
        return single(body, known[body["method"]])

    def calls(self) -> list[Any]:
        """What was read, without chain id, head and code: ``"aggregate"``, the length of a batch, or ``"alone"``."""
        found: list[Any] = []
        for body in self.asked:
            if isinstance(body, list):
                found.append(len(body))
            elif body["method"] in {"eth_call", "eth_getBalance"}:
                found.append("aggregate" if is_aggregate(body) else "alone")
        return found


def is_aggregate(body: Any) -> bool:
    return body["method"] == "eth_call" and body["params"][0]["to"] == MULTICALL3.lower()


async def ask(peer: Peer, clock: FakeClock, reads: list[Read] = READS) -> list[Answer]:
    async with endpoint(peer) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        return await chains.read(await chains.head(CHAIN), reads)


async def test_with_multicall_there_is_one_call_and_a_failed_item_is_asked_again_alone(clock: FakeClock) -> None:
    peer = Peer(code=True)
    assert await ask(peer, clock) == HONEST
    assert peer.calls() == ["aggregate", "alone"]
    asked = peer.asked[-2]["params"]
    assert asked[1] == {"blockHash": BLOCK["hash"], "requireCanonical": True}
    assert int(asked[0]["gas"], 16) < 1 << 24


async def test_without_multicall_there_is_one_batch_pinned_to_the_same_block(clock: FakeClock) -> None:
    peer = Peer(code=False)
    assert await ask(peer, clock) == HONEST
    assert peer.calls() == [3]
    assert [item["params"][1] for item in peer.asked[-1]] == [
        {"blockHash": BLOCK["hash"], "requireCanonical": True}
    ] * 3


async def test_a_single_read_needs_neither(clock: FakeClock) -> None:
    peer = Peer(code=True)
    assert await ask(peer, clock, READS[:1]) == HONEST[:1]
    assert peer.calls() == ["alone"]
    assert await ask(peer, clock, []) == []


@pytest.mark.parametrize("code", [True, False])
async def test_many_reads_go_in_pieces(clock: FakeClock, code: bool) -> None:
    sizes = []

    def aggregate(body: Any) -> str:
        data = raw(body["params"][0]["data"])
        ((items),) = abi_decode(["(address,bool,bytes)[]"], data[4:])
        sizes.append(len(items))
        return "0x" + abi_encode(["(bool,bytes)[]"], [[(True, word(1))] * len(items)]).hex()

    peer = Peer(code=code, aggregate=aggregate)
    reads: list[Read] = [Call(b"\x01" * 20, word(index)) for index in range(150)]
    assert await ask(peer, clock, reads) == [Returned(word(1))] * 150
    if code:
        assert sorted(sizes) == [22, 64, 64]
        assert peer.calls() == ["aggregate"] * 3
    else:
        assert sorted(peer.calls()) == [22, 64, 64]


REFUSALS: dict[str, Callable[[Any], Any]] = {
    "an error instead of an array": lambda _body: {"id": None, "error": {"code": -32600, "message": "no batches"}},
    "an error in an array": lambda _body: [{"id": None, "error": {"code": 31, "message": "too long"}}],
    "a status": lambda _body: web.Response(status=413, text="no"),
    "a bad request": lambda _body: web.Response(status=400, text="{}"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_who_takes_no_batches_is_asked_one_by_one_and_not_for_batches_again(name: str, clock: FakeClock) -> None:
    peer = Peer(code=False, batch=REFUSALS[name])
    async with endpoint(peer) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        head = await chains.head(CHAIN)
        assert await chains.read(head, READS) == HONEST
        assert await chains.read(head, READS) == HONEST
    assert peer.calls() == [3] + ["alone"] * 6


def with_items(change: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    return lambda body: change([single(item, "0x" + word(1).hex()) for item in body])


def renamed(items: list[Any], value: Any) -> list[Any]:
    return [items[0] | {"id": value}, *items[1:]]


HOSTILE_BATCHES: dict[str, Callable[[Any], Any]] = {
    "wrong ids": with_items(lambda items: [item | {"id": item["id"] + 100} for item in items]),
    "one wrong id": with_items(lambda items: renamed(items, -1)),
    "an id as text": with_items(lambda items: renamed(items, str(items[0]["id"]))),
    "an id that is a list": with_items(lambda items: renamed(items, [1])),
    "an id that is a fraction": with_items(lambda items: renamed(items, items[0]["id"] + 0.5)),
    "a missing item": with_items(lambda items: items[1:]),
    "one item only": with_items(lambda items: items[:1]),
    "a duplicate instead of another": with_items(lambda items: [items[0], items[0], items[2]]),
    "a duplicate more": with_items(lambda items: [*items, items[0]]),
    "an item too many": with_items(lambda items: [*items, items[0] | {"id": 999}]),
    "nothing": lambda _body: [],
    "null": lambda _body: web.Response(text="null"),
    "no array": with_items(lambda items: items[0]),
    "items that are none": lambda body: [1] * len(body),
    "an item without a result": with_items(lambda items: [{"id": items[0]["id"]}, *items[1:]]),
    "a result that is no data": with_items(lambda items: [items[0] | {"result": "zz"}, *items[1:]]),
    "a balance that is none": with_items(lambda items: [items[0], items[1] | {"result": "0x"}, items[2]]),
    "a balance beyond uint256": with_items(lambda items: [items[0], items[1] | {"result": "0x" + "f" * 65}, items[2]]),
    "a rate limit": lambda _body: {"id": None, "error": {"code": -32005, "message": "limit exceeded"}},
    "another rate limit": lambda _body: web.json_response({"error": {"code": 1, "message": ""}}, status=429),
    "a server error": lambda _body: web.Response(status=500, text="[]"),
    "results with a bad status": lambda body: web.json_response(with_items(lambda items: items)(body), status=503),
    "no JSON": lambda _body: web.Response(text="<html>"),
    "deep nesting": lambda _body: web.Response(text="[" * 100_000),
    "refusals of each": lambda body: [
        {"id": item["id"], "error": {"code": -32603, "message": "boom"}} for item in body
    ],
}


@pytest.mark.parametrize("name", HOSTILE_BATCHES)
async def test_nothing_is_believed_of_a_batch_that_is_not_what_was_asked(name: str, clock: FakeClock) -> None:
    peer = Peer(code=False, batch=HOSTILE_BATCHES[name])
    with pytest.raises(ChainUnavailable):
        await ask(peer, clock)
    assert peer.calls() == [3]


async def test_answers_of_a_batch_may_come_in_any_order(clock: FakeClock) -> None:
    peer = Peer(code=False)
    peer.instead["batch"] = lambda body: list(reversed(peer.batch(body)))
    assert await ask(peer, clock) == HONEST


async def test_an_item_that_is_refused_leaves_the_others(clock: FakeClock) -> None:
    peer = Peer(code=False)
    refusal = {"error": {"code": -32603, "message": "out of gas"}}
    peer.instead["batch"] = lambda body: [{"id": body[0]["id"]} | refusal, *peer.batch(body)[1:]]
    first, *others = await ask(peer, clock)
    assert isinstance(first, Unread)
    assert others == HONEST[1:]


def megabyte(_body: Any) -> Any:
    return web.Response(body=b'{"x":"' + b"a" * (1 << 20) + b'"}')


@pytest.mark.parametrize("code", [True, False])
async def test_one_answer_that_is_too_large_does_not_hide_the_others(clock: FakeClock, code: bool) -> None:
    peer = Peer(code=code, aggregate=megabyte, batch=megabyte)
    peer.instead["alone"] = lambda body: (
        megabyte(body) if body["method"] == "eth_call" and "01" * 20 in str(body) else peer.alone(body)
    )
    first, *others = await ask(peer, clock)
    assert isinstance(first, Unread)
    assert others == HONEST[1:]


async def test_who_shouts_always_is_not_believed(clock: FakeClock) -> None:
    peer = Peer(code=True, aggregate=megabyte, batch=megabyte)
    peer.instead["alone"] = lambda body: megabyte(body) if "eth_get" not in body["method"] else peer.alone(body)
    with pytest.raises(ChainUnavailable):
        await ask(peer, clock, [READS[0], READS[2]])


def encoded(items: list[tuple[bool, bytes]]) -> bytes:
    return bytes(abi_encode(["(bool,bytes)[]"], [items]))


GOOD = encoded([(True, word(1)), (True, word(2)), (True, b"")])


def patched(place: int, value: int) -> bytes:
    """The good answer with another word at ``place`` (in words)."""
    return GOOD[: place * 32] + word(value) + GOOD[(place + 1) * 32 :]


HOSTILE_ABI = {
    "truncated by a byte": GOOD[:-1],
    "truncated by a word": GOOD[:-32],
    "truncated to a word": GOOD[:32],
    "one byte": b"\x01",
    "a word too many": GOOD + word(0),
    "an item too few": encoded([(True, word(1))] * 2),
    "an item too many": encoded([(True, word(1))] * 4),
    "no items": encoded([]),
    "a count beyond everything": patched(1, 2**256 - 1),
    "a list that begins elsewhere": patched(0, 64),
    "a list that begins beyond the end": patched(0, 2**255),
    "an offset into itself": patched(2, 0),
    "two offsets to one item": patched(3, int.from_bytes(GOOD[64:96], "big")),
    "an offset beyond the end": patched(2, 2**256 - 32),
    "a truth that is none": patched(5, 2),
    "a truth of all bits": patched(5, 2**256 - 1),
    "data that begins elsewhere": patched(6, 32),
    "data that is longer than all": patched(7, 2**256 - 1),
    "data that takes in its neighbour": patched(7, 64),
    "data that ends early": patched(7, 0),
}


@pytest.mark.parametrize("name", HOSTILE_ABI)
async def test_a_hostile_encoding_is_not_believed_and_the_contract_looked_for_again(
    name: str, clock: FakeClock
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        multicall3.decode(HOSTILE_ABI[name], 3)
    peer = Peer(code=True, aggregate=lambda _body: "0x" + HOSTILE_ABI[name].hex())
    async with endpoint(peer) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        head = await chains.head(CHAIN)
        for _ in range(2):
            with pytest.raises(ChainUnavailable):
                await chains.read(head, READS)
    assert [body["method"] for body in peer.asked].count("eth_getCode") == 2
    assert peer.calls() == ["aggregate"] * 2


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=100)), max_size=6), st.integers(0, 7))
def test_what_the_contract_writes_is_read_and_nothing_of_another_length(items: list[Any], count: int) -> None:
    data = encoded(items)
    if count == len(items):
        assert multicall3.decode(data, count) == items
    else:
        with pytest.raises(ValueError, match=r"\w"):
            multicall3.decode(data, count)


@given(st.data())
def test_no_bytes_raise_anything_but_a_refusal_and_what_is_read_is_what_others_read(data: st.DataObject) -> None:
    place, value = data.draw(st.integers(0, len(GOOD) - 1)), data.draw(st.integers(0, 255))
    changed = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    try:
        found = multicall3.decode(changed, 3)
    except ValueError:
        return
    try:
        assert list(abi_decode(["(bool,bytes)[]"], changed)[0]) == found
    except DecodingError:
        assert changed != GOOD  # padding that is not zero


@given(st.lists(st.binary(max_size=70), min_size=1, max_size=5))
def test_what_is_asked_is_encoded_as_others_encode_it(parts: list[bytes]) -> None:
    reads: list[Read] = [Call(b"\x07" * 20, part) for part in parts]
    items = [("0x" + "07" * 20, True, part) for part in parts]
    balance = multicall3.GET_ETH_BALANCE + abi_encode(["address"], ["0x" + "09" * 20])
    expected = abi_encode(["(address,bool,bytes)[]"], [[*items, (MULTICALL3, True, balance)]])
    assert multicall3.encode([*reads, Balance(b"\x09" * 20)]) == multicall3.AGGREGATE3 + expected


@pytest.mark.parametrize("code", [-32603, -32000, 3])
async def test_where_the_whole_call_fails_each_is_asked_for_alone(clock: FakeClock, code: int) -> None:
    failure = {"error": {"code": code, "message": "out of gas"}}
    peer = Peer(code=True, aggregate=lambda body: web.json_response({"id": body["id"]} | failure))
    assert await ask(peer, clock) == HONEST
    assert peer.calls() == ["aggregate", 3]


async def test_a_rate_limit_is_not_answered_with_more_requests(clock: FakeClock) -> None:
    failure = {"error": {"code": -32005, "message": "limit exceeded"}}
    peer = Peer(code=True, aggregate=lambda body: web.json_response({"id": body["id"]} | failure))
    with pytest.raises(ChainUnavailable):
        await ask(peer, clock)
    assert peer.calls() == ["aggregate"]


async def test_what_came_after_a_failure_without_a_reason_is_asked_again_alone(clock: FakeClock) -> None:
    starved = encoded([(True, word(1)), (False, b""), (True, word(0))])
    peer = Peer(code=True, aggregate=lambda _body: "0x" + starved.hex())
    assert await ask(peer, clock) == HONEST
    assert peer.calls() == ["aggregate", 2]


async def test_whether_multicall_is_there_is_remembered_for_a_while(clock: FakeClock) -> None:
    peer = Peer(code=False)
    async with endpoint(peer) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        head = await chains.head(CHAIN)
        for _ in range(3):
            await chains.read(head, READS)
        peer.code = True
        clock.advance(ABSENT_S)
        for _ in range(3):
            await chains.read(head, READS)
    assert [body["method"] for body in peer.asked if isinstance(body, dict)].count("eth_getCode") == 2
    assert peer.calls() == [3, 3, 3] + ["aggregate", "alone"] * 3


async def test_a_block_from_before_multicall_is_read_by_a_batch(clock: FakeClock) -> None:
    peer = Peer(code=True, aggregate=lambda _body: "0x")
    assert await ask(peer, clock) == HONEST
    assert peer.calls() == ["aggregate", 3]


async def test_many_answers_that_are_each_in_time_are_given_up_together(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(code=False, batch=lambda _body: web.Response(status=413))

    async def dripping(body: Any) -> Any:
        await asyncio.sleep(0.15)
        return peer.alone(body)

    peer.instead["alone"] = lambda body: dripping(body) if body["method"] == "eth_call" else peer.alone(body)
    reads: list[Read] = [Call(b"\x01" * 20, word(index)) for index in range(60)]
    with monkeypatch.context() as hurried:
        hurried.setattr(chain_jsonrpc, "TIMEOUT_S", 0.3)
        with pytest.raises(ChainUnavailable):
            await ask(peer, clock, reads)
    peer.instead["alone"] = peer.alone
    assert await ask(peer, clock, reads) == [Returned(word(1))] * 60


# --- the same against a real node


@pytest.fixture(scope="module")
def own_chain() -> Iterator[Chain]:
    """A node on which Multicall3 comes and goes."""
    with anvil() as started:
        yield started


@asynccontextmanager
async def reading(chain: Chain, clock: FakeClock) -> AsyncIterator[tuple[Relay, JsonRpcChains, Head]]:
    async with AsyncExitStack() as stack:
        passing = await stack.enter_async_context(relay(chain.url))
        chains = await stack.enter_async_context(JsonRpcChains({CHAIN: [passing.url]}, clock))
        head = await chains.head(CHAIN)
        passing.methods()
        yield passing, chains, head


async def test_a_real_node_says_the_same_in_one_call_in_a_batch_and_one_by_one(
    own_chain: Chain, clock: FakeClock
) -> None:
    coin, item, ticket = (own_chain.deploy(name) for name in ("Coin", "Item", "Ticket"))
    refusing, mute, shouting, burning, thirsty = (
        raw(own_chain.deploy(name)) for name in ("Refusing", "Mute", "Shouting", "Burning", "Thirsty")
    )
    holder = own_chain.accounts[1]
    own_chain.send(coin, own_chain.call_data("mint(address,uint256)", holder, 500))
    own_chain.send(item, own_chain.call_data("mint(address,uint256,uint256)", holder, 7, 3))
    own_chain.mint(ticket, holder, 1)
    funds = int(own_chain.rpc("eth_getBalance", holder, "latest"), 16)
    balance_of = BALANCE_OF + word(holder)
    reads: list[Read] = [
        Call(raw(coin), balance_of),
        Call(raw(item), BALANCE_OF_ID + word(holder) + word(7)),
        Balance(raw(holder)),
        Call(raw(ticket), OWNER_OF + word(1)),
        Call(raw(ticket), OWNER_OF + word(2)),
        Call(refusing, balance_of),
        Call(mute, balance_of),
        Call(b"\x12" * 20, balance_of),
        Call(thirsty, balance_of),
    ]
    missing = bytes.fromhex("7e273289") + word(2)  # ERC721NonexistentToken(2)
    expected = [
        Returned(word(500)),
        Returned(word(3)),
        Returned(word(funds)),
        Returned(word(holder)),
        Reverted(missing),
        Reverted(keccak(text="NotToday()")[:4]),
        Returned(b""),
        Returned(b""),
        Returned(word(7)),
    ]
    for present, batches, methods in (
        (True, True, ["eth_getCode", "eth_call", "[eth_call, eth_call]"]),
        (False, True, ["eth_getCode", "[" + ", ".join(["eth_call"] * 2 + ["eth_getBalance"] + ["eth_call"] * 6) + "]"]),
        (False, False, None),
    ):
        own_chain.place_multicall3(present=present)
        async with reading(own_chain, clock) as (passing, chains, head):
            passing.batches = batches
            found = await chains.read(head, reads)
            assert found == expected
            asked = passing.methods()
            assert methods is None or asked == methods
            # One that burns all gas and one that shouts are unread, and take nothing from the others.
            hostile: list[Read] = [Call(burning, balance_of), Call(shouting, balance_of)]
            for bad in (hostile[:1], hostile[1:], hostile, hostile[:1] * 3):
                mixed = await chains.read(head, [*bad, *reads])
                assert all(isinstance(answer, Unread) for answer in mixed[: len(bad)])
                assert mixed[len(bad) :] == found


async def test_a_contract_that_answers_wrongly_for_want_of_gas_is_asked_again_alone(
    own_chain: Chain, clock: FakeClock
) -> None:
    burning, thirsty = (raw(own_chain.deploy(name)) for name in ("Burning", "Thirsty"))
    balance_of = BALANCE_OF + word(own_chain.accounts[1])
    own_chain.place_multicall3()
    async with reading(own_chain, clock) as (passing, chains, head):
        burnt, answer = await chains.read(head, [Call(burning, balance_of), Call(thirsty, balance_of)])
        assert passing.methods() == ["eth_getCode", "eth_call", "[eth_call, eth_call]"]
    assert isinstance(burnt, Unread)
    assert answer == Returned(word(7))
