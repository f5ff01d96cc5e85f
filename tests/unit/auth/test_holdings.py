"""Coins, items, the chain's own coin and ranges of tokens, over a real node: with Multicall3 and without, and what it costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from streamgate.adapters.chain_jsonrpc import JsonRpcChains
from streamgate.contracts.auth import Access, Decision, DecisionRequest, EvaluationRequest, PolicyDraft
from streamgate.domain.identity import Caller, Prefix, Role, new_id
from streamgate.runtime.database import Database
from tests.support.access import access
from tests.support.chain import CHAIN, Chain, anvil
from tests.support.clock import FakeClock
from tests.support.rpc import Relay, endpoint, relay, single

CREATOR = Caller(account="eip155:1:0x" + "cc" * 20, role=Role.CREATOR)
EMPTY = "0x" + "ee" * 20
PRECOMPILES = ["0x" + f"{number:040x}" for number in (1, 2, 3, 4)]


@dataclass
class World:
    """A node with tokens on it: the holder has 500 of the coin, 3 of item 7, and tickets 10, 12 and 14."""

    chain: Chain
    coin: str
    item: str
    ticket: str
    holder: str


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with anvil() as chain:
        made = World(chain, chain.deploy("Coin"), chain.deploy("Item"), chain.deploy("Ticket"), chain.accounts[1])
        chain.send(made.coin, chain.call_data("mint(address,uint256)", made.holder, 500))
        chain.send(made.item, chain.call_data("mint(address,uint256,uint256)", made.holder, 7, 3))
        for token in (10, 12, 14):
            chain.mint(made.ticket, made.holder, token)
        yield made


class Gate:
    """Asks the auth service about wallets. ``passing``: what goes to the node."""

    def __init__(self, access: Access, passing: Relay, clock: FakeClock) -> None:
        self.access = access
        self.passing = passing
        self.clock = clock

    async def ask(self, expr: Any, wallet: str) -> Decision:
        document = {"v": 1, "expr": expr}
        policy = await self.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
        request = DecisionRequest(
            account=f"eip155:1:{wallet.lower()}", asset_id=new_id(Prefix.ASSET), policy_id=policy.id
        )
        return await self.access.decide(request)


@pytest.fixture(params=["multicall", "batch", "one by one"])
async def gate(
    request: pytest.FixtureRequest, world: World, database: Database, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[Gate]:
    world.chain.place_multicall3(present=request.param == "multicall")
    async with AsyncExitStack() as stack:
        passing = await stack.enter_async_context(relay(world.chain.url))
        passing.batches = request.param != "one by one"
        chains = await stack.enter_async_context(JsonRpcChains({CHAIN: [passing.url]}, clock))
        yield Gate(access(database, clock, chains, tmp_path), passing, clock)


def erc20(contract: str, minimum: int) -> dict[str, Any]:
    return {"erc20": {"chain": CHAIN, "contract": contract, "min": str(minimum)}}


def erc1155(contract: str, token_id: int, minimum: int) -> dict[str, Any]:
    return {"erc1155": {"chain": CHAIN, "contract": contract, "token_id": str(token_id), "min": str(minimum)}}


def native(minimum: int) -> dict[str, Any]:
    return {"native": {"chain": CHAIN, "min": str(minimum)}}


def ranged(contract: str, first: int, last: int, minimum: int = 1) -> dict[str, Any]:
    bounds = {"from": str(first), "to": str(last)}
    return {"erc721": {"chain": CHAIN, "contract": contract, "id_range": bounds, "min": str(minimum)}}


async def test_every_kind_of_holding_is_told_from_too_little(gate: Gate, world: World) -> None:
    funds = int(world.chain.rpc("eth_getBalance", world.holder, "latest"), 16)
    rules = [
        (erc20(world.coin, 500), erc20(world.coin, 501), "500", f"at least 501 of {world.coin}"),
        (erc1155(world.item, 7, 3), erc1155(world.item, 7, 4), "3", f"at least 4 of token 7 of {world.item}"),
        (erc1155(world.item, 7, 1), erc1155(world.item, 8, 1), "0", f"at least 1 of token 8 of {world.item}"),
        (native(funds), native(funds + 1), f"{funds}", f"at least {funds + 1} wei of the coin of {CHAIN}"),
        (
            ranged(world.ticket, 10, 13, 2),
            ranged(world.ticket, 10, 13, 3),
            "2 of them",
            f"at least 3 of 10 to 13 of {world.ticket}",
        ),
        (ranged(world.ticket, 14, 14), ranged(world.ticket, 15, 20), "0 of them", None),
    ]
    yes = await gate.ask({"all": [enough for enough, *_ in rules]}, world.holder)
    assert (yes.outcome, {leaf.decision for leaf in yes.leaves}) == ("allow", {"allow"})
    no = await gate.ask({"any": [short for _, short, *_ in rules]}, world.holder)
    assert (no.outcome, {leaf.decision for leaf in no.leaves}) == ("deny", {"deny"})
    for leaf, (*_, have, need) in zip(no.leaves, rules, strict=True):
        assert leaf.have == have
        assert need is None or leaf.need == need
        assert (leaf.chain, len(leaf.block_hash or "")) == (CHAIN, 66)
    nobody = await gate.ask({"any": [enough for enough, *_ in rules]}, EMPTY)
    assert nobody.outcome == "deny"
    assert {leaf.have for leaf in nobody.leaves} == {"0", "0 of them"}


async def test_at_least_counts_what_is_sure(gate: Gate, world: World) -> None:
    yes, no, unknown = erc20(world.coin, 1), erc1155(world.item, 8, 1), erc20(EMPTY, 1)
    also = ranged(world.ticket, 1, 100)
    for k, of, outcome in (
        (2, [yes, also, no], "allow"),
        (3, [yes, also, no], "deny"),
        (2, [yes, also, unknown], "allow"),
        (2, [yes, unknown, no], "unknown"),
        (3, [yes, unknown, no], "deny"),
        (1, [unknown, unknown], "unknown"),
    ):
        decision = await gate.ask({"at_least": {"k": k, "of": of}}, world.holder)
        assert decision.outcome == outcome, (k, of)
        inverse = {"allow": "deny", "deny": "allow", "unknown": "unknown"}[outcome]
        assert (await gate.ask({"not": {"at_least": {"k": k, "of": of}}}, world.holder)).outcome == inverse


async def test_a_range_of_256_tokens_most_of_which_nobody_has(gate: Gate, world: World) -> None:
    wide = ranged(world.ticket, 0, 255, 3)
    assert (await gate.ask(wide, world.holder)).leaves[0].have == "3 of them"
    assert (await gate.ask(wide, EMPTY)).outcome == "deny"


@pytest.mark.parametrize("name", ["Mute", "Refusing", "Shouting", "Burning", None, *PRECOMPILES])
async def test_what_is_no_token_is_unknown_for_every_kind_and_hides_nobody_else(
    gate: Gate, world: World, name: str | None
) -> None:
    if name is None or name in PRECOMPILES:
        contract = name or EMPTY
        if name is None:
            assert world.chain.rpc("eth_getCode", contract, "latest") == "0x"
    else:
        contract = world.chain.deploy(name)
    rules = [erc20(contract, 1), erc1155(contract, 7, 1), {"erc721": {"chain": CHAIN, "contract": contract}}]
    if name != "Refusing":  # a revert of ownerOf is how ERC-721 says that there is no such token
        rules.append(ranged(contract, 1, 2))
    for rule in rules:
        for expr in (rule, {"not": rule}):
            decision = await gate.ask(expr, world.holder)
            assert (decision.outcome, decision.leaves[0].decision) == ("unknown", "unknown")
    together = await gate.ask({"any": [*rules, erc20(world.coin, 1), native(1)]}, world.holder)
    assert together.outcome == "allow"
    assert [leaf.decision for leaf in together.leaves] == ["unknown"] * len(rules) + ["allow", "allow"]
    if name is None or name in PRECOMPILES:
        assert {leaf.have for leaf in together.leaves[: len(rules)]} == {"there is no contract at this address"}


async def test_a_decision_costs_a_block_and_one_call(gate: Gate, world: World, request: pytest.FixtureRequest) -> None:
    expr = {
        "at_least": {"k": 3, "of": [erc20(world.coin, 1), erc1155(world.item, 7, 1), native(1), erc20(world.coin, 2)]}
    }
    await gate.ask(expr, world.holder)
    gate.passing.methods()
    world.chain.rpc("evm_mine")
    gate.clock.advance(2)
    assert (await gate.ask(expr, world.holder)).outcome == "allow"
    reads = {
        "multicall": ["eth_call"],
        "batch": ["[eth_call, eth_call, eth_getBalance]"],
        "one by one": ["eth_call", "eth_call", "eth_getBalance"],
    }[request.node.callspec.params["gate"]]
    assert sorted(gate.passing.methods()) == sorted(["eth_getBlockByNumber", *reads])
    # The same question in the same block costs nothing; another one only what is new.
    assert (await gate.ask(expr, world.holder)).outcome == "allow"
    assert gate.passing.methods() == []
    await gate.ask({"all": [expr, erc1155(world.item, 8, 1)]}, world.holder)
    assert gate.passing.methods() == ["eth_call"]


async def test_an_earlier_block_is_read_as_it_was(gate: Gate, world: World) -> None:
    before = int(world.chain.rpc("eth_blockNumber"), 16)
    newcomer = world.chain.accounts[5]
    world.chain.send(world.coin, world.chain.call_data("mint(address,uint256)", newcomer, 5))
    world.chain.send(
        world.coin, world.chain.call_data("transfer(address,uint256)", "0x" + "dd" * 20, 5), sender=newcomer
    )
    document = {"v": 1, "expr": {"all": [erc20(world.coin, 5), native(1)]}}
    seen = []
    for block in (before, before + 1, before + 2):
        asked = EvaluationRequest(document=document, account=newcomer, block=block)
        seen.append((await gate.access.evaluate(CREATOR, asked)).decision)
    assert seen == ["deny", "allow", "deny"]


LIARS: dict[str, Any] = {
    "truncated": "0x" + "00" * 31,
    "everything": "0x" + "ff" * 320,
    "zeros": "0x" + "00" * 1024,
    "nothing": None,
}


@pytest.mark.parametrize("name", LIARS)
async def test_an_endpoint_that_answers_many_reads_wrongly_never_grants(
    name: str, database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    head = {"number": "0x5", "hash": "0x" + "05" * 32, "timestamp": "0x1"}

    def lie(body: Any) -> Any:
        if isinstance(body, list):
            return web.json_response([single(body[0], LIARS[name])])
        known = {"eth_chainId": hex(31337), "eth_getBlockByNumber": head, "eth_getCode": "0x60"}
        return known.get(body["method"], LIARS[name])

    async with endpoint(lie) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        gate = Gate(access(database, clock, chains, tmp_path), None, clock)  # type: ignore[arg-type]
        for expr in (
            {"any": [erc20(EMPTY, 1), native(1)]},
            {"not": {"any": [erc20(EMPTY, 1), native(1)]}},
            {"at_least": {"k": 1, "of": [ranged(EMPTY, 0, 255), native(1)]}},
        ):
            assert (await gate.ask(expr, "0x" + "ab" * 20)).outcome == "unknown"
