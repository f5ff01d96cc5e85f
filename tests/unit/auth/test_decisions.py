"""The gate against a real chain: who holds, who does not, and what nobody can know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.adapters.chain_jsonrpc import JsonRpcChains
from streamgate.contracts.auth import Access, Decision, DecisionRequest, EvaluationRequest, PolicyDraft
from streamgate.domain.errors import NotFound, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, new_id
from streamgate.plugins.auth.chain_reads import ChainReads
from streamgate.runtime.database import Database
from tests.support.access import access
from tests.support.chain import CHAIN, Chain, anvil
from tests.support.clock import FakeClock
from tests.support.server import free_port

CREATOR = Caller(account="eip155:1:0x" + "cc" * 20, role=Role.CREATOR)


class Gate:
    """Asks the auth service about wallets."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def ask(self, expr: Any, wallet: str | None, **options: Any) -> Decision:
        document = {"v": 1, "expr": expr, "options": options}
        policy = await self.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
        return await self.again(policy.id, wallet)

    async def again(self, policy_id: str, wallet: str | None) -> Decision:
        account = None if wallet is None else f"eip155:1:{wallet.lower()}"
        return await self.access.decide(
            DecisionRequest(account=account, asset_id=new_id(Prefix.ASSET), policy_id=policy_id)
        )


@pytest.fixture
def database_url(embedded_url: str) -> str:
    """Tokens move on one chain for all tests, and what is read of it does not hang on the engine."""
    return embedded_url


@pytest.fixture
async def gate(database: Database, clock: FakeClock, chain: Chain, tmp_path: Path) -> AsyncIterator[Gate]:
    endpoints = {CHAIN: [chain.url], "eip155:5": [f"http://127.0.0.1:{free_port()}"], "eip155:9": [chain.url]}
    async with JsonRpcChains(endpoints, clock) as chains:
        yield Gate(access(database, clock, chains, tmp_path))


@pytest.fixture(scope="session")
def ticket(chain: Chain) -> str:
    return chain.deploy("Ticket")


def holds(contract: str, **more: Any) -> dict[str, Any]:
    return {"erc721": {"chain": CHAIN, "contract": contract, **more}}


async def test_a_holder_is_let_in_and_the_reason_is_told(
    gate: Gate, chain: Chain, ticket: str, clock: FakeClock
) -> None:
    holder, other = chain.accounts[1], chain.accounts[2]
    chain.mint(ticket, holder, 1)
    yes = await gate.ask(holds(ticket), holder)
    assert yes.outcome == "allow"
    assert yes.valid_until_ms == clock.now_ms() + 30_000
    assert yes.max_staleness_s == 30
    no = await gate.ask(holds(ticket, min="1"), other, ttl_s=5)
    assert (no.outcome, no.max_staleness_s) == ("deny", 5)
    (leaf,) = no.leaves
    assert (leaf.path, leaf.decision, leaf.have, leaf.chain) == ("/expr/erc721", "deny", "0", CHAIN)
    assert leaf.need == f"at least 1 of {ticket}"
    assert leaf.block == int(chain.rpc("eth_blockNumber"), 16)
    assert len(leaf.block_hash or "") == 66


async def test_a_transfer_turns_the_answer(gate: Gate, chain: Chain, ticket: str, clock: FakeClock) -> None:
    holder, other = chain.accounts[3], chain.accounts[4]
    chain.mint(ticket, holder, 30)
    document = {"v": 1, "expr": holds(ticket)}
    policy = await gate.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
    assert [(await gate.again(policy.id, wallet)).outcome for wallet in (holder, other)] == ["allow", "deny"]
    chain.transfer(ticket, holder, other, 30)
    clock.advance(1)
    assert [(await gate.again(policy.id, wallet)).outcome for wallet in (holder, other)] == ["deny", "allow"]


async def test_named_tokens_count_and_a_missing_one_is_nobodys(gate: Gate, chain: Chain, ticket: str) -> None:
    holder = chain.accounts[5]
    for token in (50, 51):
        chain.mint(ticket, holder, token)
    assert (await gate.ask(holds(ticket, token_ids=["50", "999"]), holder)).outcome == "allow"
    assert (await gate.ask(holds(ticket, token_ids=["999"]), holder)).outcome == "deny"
    assert (await gate.ask(holds(ticket, token_ids=["50", "51"], min="2"), holder)).outcome == "allow"
    assert (await gate.ask(holds(ticket, token_ids=["50", "999"], min="2"), holder)).outcome == "deny"


async def test_finality_says_which_block_is_read(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """The node calls safe what is four blocks old, and finalized what is eight."""
    with anvil("--slots-in-an-epoch", "4") as chain:
        async with JsonRpcChains({CHAIN: [chain.url]}, clock) as chains:
            gate = Gate(access(database, clock, chains, tmp_path))
            ticket, holder = chain.deploy("Ticket"), chain.accounts[1]
            mined(chain, 10)
            chain.mint(ticket, holder, 1)

            async def outcomes() -> list[str]:
                clock.advance(5)
                kinds = ("latest", "safe", "finalized")
                return [(await gate.ask(holds(ticket), holder, finality=kind)).outcome for kind in kinds]

            assert await outcomes() == ["allow", "deny", "deny"]
            mined(chain, 4)
            assert await outcomes() == ["allow", "allow", "deny"]
            mined(chain, 4)
            assert await outcomes() == ["allow", "allow", "allow"]


def mined(chain: Chain, blocks: int) -> None:
    for _ in range(blocks):
        chain.rpc("evm_mine")


@pytest.mark.parametrize("name", ["Mute", "Refusing", "Shouting", None])
async def test_a_contract_that_is_no_erc721_is_unknown_and_never_grants(
    gate: Gate, chain: Chain, name: str | None
) -> None:
    contract = chain.deploy(name) if name else "0x" + "12" * 20
    for expr in (holds(contract), {"not": holds(contract)}, {"not": holds(contract, token_ids=["1"])}):
        decision = await gate.ask(expr, chain.accounts[1])
        if name == "Refusing" and "token_ids" in str(expr):
            continue  # a revert of ownerOf is how ERC-721 says that there is no such token
        if name == "Shouting" and decision.outcome == "deny":
            assert "not" not in expr  # a megabyte of zeros begins with the number 0
            continue
        assert decision.outcome == "unknown" or (name == "Shouting" and "not" in expr)
    if name is None:
        assert (await gate.ask(holds(contract), chain.accounts[1])).leaves[
            0
        ].have == "there is no contract at this address"


async def test_a_chain_that_is_away_or_another_one_is_unknown(gate: Gate, chain: Chain, ticket: str) -> None:
    for absent in ("eip155:5", "eip155:9", "eip155:77"):
        rule = {"erc721": {"chain": absent, "contract": ticket}}
        assert (await gate.ask(rule, chain.accounts[1])).outcome == "unknown"
        assert (await gate.ask({"not": rule}, chain.accounts[1])).outcome == "unknown"
        listed = {"allowlist": {"addresses": [chain.accounts[1]]}}
        assert (await gate.ask({"any": [rule, listed]}, chain.accounts[1])).outcome == "allow"
        assert (await gate.ask({"all": [rule, {"not": listed}]}, chain.accounts[1])).outcome == "deny"


async def test_lists_and_windows(gate: Gate, chain: Chain, clock: FakeClock) -> None:
    wallet = chain.accounts[1]
    assert (
        await gate.ask({"allowlist": {"addresses": [wallet.upper().replace("0X", "0x")]}}, wallet)
    ).outcome == "allow"
    window = {"time_window": {"from": "2026-05-28T20:26:50Z", "until": "2026-05-28T20:27:00Z"}}
    document = {"v": 1, "expr": window}
    policy = await gate.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
    clock.advance((1_780_000_009_000 - clock.now_ms()) / 1000)
    before = await gate.again(policy.id, wallet)
    assert before.outcome == "deny"
    clock.advance(1)
    inside = await gate.again(policy.id, wallet)
    assert (inside.outcome, inside.valid_until_ms) == ("allow", 1_780_000_020_000)
    clock.advance(10)
    assert (await gate.again(policy.id, wallet)).outcome == "deny"


async def test_nobody_and_no_policy_are_denied(gate: Gate, chain: Chain) -> None:
    everybody = {"time_window": {"from": "2020-01-01T00:00:00Z"}}
    assert (await gate.ask(everybody, None)).outcome == "deny"
    for account, policy_id in (("admin", None), ("eip155:1:0x" + "aa" * 20, new_id(Prefix.POLICY))):
        request = DecisionRequest(account=account, asset_id=new_id(Prefix.ASSET), policy_id=policy_id)
        assert (await gate.access.decide(request)).outcome == "deny"


async def test_many_who_ask_at_once_cost_one_reading(
    database: Database, clock: FakeClock, chain: Chain, ticket: str, tmp_path: Path
) -> None:
    class Counting(JsonRpcChains):
        reads = 0

        async def read(self, head: Any, reads: Any) -> Any:
            Counting.reads += 1
            return await super().read(head, reads)

    async with Counting({CHAIN: [chain.url]}, clock) as chains:
        gate = Gate(access(database, clock, chains, tmp_path))
        document = {"v": 1, "expr": holds(ticket)}
        policy = await gate.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
        answers = await asyncio.gather(*(gate.again(policy.id, chain.accounts[6]) for _ in range(50)))
    assert {answer.outcome for answer in answers} == {"deny"}
    assert Counting.reads == 1


async def test_a_dry_run_grants_nothing_and_shows_nothing_of_others(gate: Gate, chain: Chain, ticket: str) -> None:
    chain.mint(ticket, chain.accounts[7], 70)
    before = int(chain.rpc("eth_blockNumber"), 16) - 1
    document = {"v": 1, "expr": {"all": [holds(ticket), {"not": holds(ticket, token_ids=["71"])}]}}
    account = chain.accounts[7]
    tried = await gate.access.evaluate(CREATOR, EvaluationRequest(document=document, account=account))
    assert (tried.decision, len(tried.leaves), len(tried.warnings)) == ("allow", 2, 1)
    earlier = await gate.access.evaluate(CREATOR, EvaluationRequest(document=document, account=account, block=before))
    assert earlier.decision == "deny"
    policy = await gate.access.create_policy(CREATOR, PolicyDraft(name="p", document=document))
    stranger = Caller(account="eip155:1:0x" + "dd" * 20, role=Role.CREATOR)
    with pytest.raises(NotFound):
        await gate.access.evaluate(stranger, EvaluationRequest(policy_id=policy.id, account=account))
    for wrong in (
        EvaluationRequest(account=account),
        EvaluationRequest(account="nobody", document=document),
        EvaluationRequest(account=account, document={"v": 1}),
        EvaluationRequest(account=account, document=document, block=-1),
    ):
        with pytest.raises(ValidationFailed):
            await gate.access.evaluate(CREATOR, wrong)


async def test_health_says_which_chain_can_be_read(clock: FakeClock, chain: Chain) -> None:
    endpoints = {CHAIN: [chain.url], "eip155:5": [f"http://127.0.0.1:{free_port()}"]}
    async with JsonRpcChains(endpoints, clock) as chains:
        found = await ChainReads(chains, clock).health()
    assert {name: check.status for name, check in found.items()} == {CHAIN: "ok", "eip155:5": "degraded"}
    assert found[CHAIN].detail.startswith("at block ")
