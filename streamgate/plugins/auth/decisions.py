"""The gate's answers: a policy evaluated for a wallet, at one block of every chain it names, with reasons.

A leaf is false only where its standard says so; anything that could not be read, or does not look like the standard, is
unknown, and unknown never grants, not even under ``not``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Literal

from streamgate.contracts.auth import Decision, DecisionRequest, Evaluation, EvaluationRequest, LeafResult
from streamgate.domain import policy as rules
from streamgate.domain.clock import Clock
from streamgate.domain.errors import ChainUnavailable, ValidationFailed
from streamgate.domain.identity import Caller, Role
from streamgate.domain.policy import Allowlist, Erc721, Holding, Leaf, Policy, TimeWindow, Truth
from streamgate.plugins.auth.accounts import wallet_of
from streamgate.plugins.auth.chain_reads import ChainReads
from streamgate.plugins.auth.findings import Finding, contract_of, held, in_window, listed, narrowed, need_of, reads_of
from streamgate.plugins.auth.policies import PolicyShelf
from streamgate.plugins.auth.store import StoredPolicy
from streamgate.ports.chain import Head

MAX_PARSED = 256
Outcome = Literal["allow", "deny", "unknown"]
_NAMES: dict[Truth, Outcome] = {True: "allow", False: "deny", None: "unknown"}


class Judge:
    """Evaluates policies. ``default_ttl_s``: how long a yes holds where the policy says nothing."""

    def __init__(self, *, policies: PolicyShelf, reads: ChainReads, clock: Clock, default_ttl_s: float) -> None:
        self._policies = policies
        self._reads = reads
        self._clock = clock
        self._default_ttl_s = default_ttl_s
        self._parsed: OrderedDict[tuple[str, int], Policy] = OrderedDict()

    async def decide(self, request: DecisionRequest) -> Decision:
        """See `Access.decide`."""
        stored = None if request.policy_id is None else await self._policies.newest(request.policy_id)
        wallet = _wallet(request.account)
        now = self._clock.now_ms()
        if stored is None or wallet is None:
            version = stored.version if stored else 0
            return Decision(
                outcome="deny",
                leaves=(),
                policy_version=version,
                valid_until_ms=now,
                max_staleness_s=self._default_ttl_s,
            )
        policy = self._parse(stored)
        named = frozenset(int(token) for token in request.token_ids) if policy.seats_per_token else None
        truth, findings = await self._evaluate(policy, wallet, None, named)
        ttl_s = policy.ttl_s or self._default_ttl_s
        return Decision(
            outcome=_outcome(truth),
            leaves=_results(findings),
            policy_version=stored.version,
            valid_until_ms=_valid_until(now, ttl_s, findings),
            max_staleness_s=ttl_s,
            tokens=_tokens(findings) if policy.seats_per_token else (),
            seats_per_token=policy.seats_per_token,
        )

    async def evaluate(self, caller: Caller, request: EvaluationRequest) -> Evaluation:
        """See `Access.evaluate`."""
        caller.require(Role.CREATOR)
        if (request.document is None) == (request.policy_id is None):
            raise ValidationFailed("Give either a document or a policy_id.").at("/document")
        try:
            wallet = wallet_of(request.account)
        except ValueError as error:
            raise ValidationFailed(f"account cannot be used: {error}.").at("/account") from None
        if request.block is not None and not 0 <= request.block < 1 << 63:
            raise ValidationFailed("block must be a block number.").at("/block")
        if request.policy_id is not None:
            policy = self._parse(await self._policies.owned_document(caller, request.policy_id))
        else:
            policy = rules.parse(request.document, "/document")
        truth, findings = await self._evaluate(policy, wallet, request.block)
        return Evaluation(decision=_outcome(truth), leaves=_results(findings), warnings=policy.warnings())

    async def _evaluate(
        self, policy: Policy, wallet: str, block: int | None, named: frozenset[int] | None = None
    ) -> tuple[Truth, dict[Leaf, Finding]]:
        """The policy's value and what was found of each leaf; one block per chain for all of them.

        ``named``: the only ERC-721 tokens that count; None: every one does.
        """
        tag = policy.finality if block is None else hex(block)
        leaves = list(dict.fromkeys(policy.leaves()))
        holdings: dict[str, list[Holding]] = {}
        asked_for: dict[Leaf, Holding | None] = {}
        for leaf in leaves:
            if isinstance(leaf, Holding):
                asked_for[leaf] = leaf if named is None or not isinstance(leaf, Erc721) else narrowed(leaf, named)
        for asked in asked_for.values():
            if asked is not None:
                holdings.setdefault(asked.chain, []).append(asked)
        read = await asyncio.gather(*(self._on_chain(chain, tag, part, wallet) for chain, part in holdings.items()))
        owned = {leaf: finding for chain in read for leaf, finding in chain.items()}
        findings: dict[Leaf, Finding] = {}
        for leaf in leaves:
            if not isinstance(leaf, Holding):
                findings[leaf] = self._off_chain(leaf, wallet)
            elif (asked := asked_for[leaf]) is not None:
                findings[leaf] = owned[asked]
            else:
                findings[leaf] = Finding(False, need_of(leaf), "name the tokens that you watch with (token_ids)")
        return rules.evaluate(policy.root, lambda leaf: findings[leaf].truth), findings

    def _off_chain(self, leaf: Allowlist | TimeWindow, wallet: str) -> Finding:
        return listed(leaf, wallet) if isinstance(leaf, Allowlist) else in_window(leaf, self._clock.now_ms())

    async def _on_chain(self, chain: str, tag: str, leaves: list[Holding], wallet: str) -> dict[Holding, Finding]:
        """What was found of the leaves of one chain, all read at one block and in one go."""
        try:
            head = await self._reads.head(chain, tag)
        except ChainUnavailable as error:
            return {leaf: Finding(None, need_of(leaf), error.detail) for leaf in leaves}
        contracts = list(dict.fromkeys(contract for leaf in leaves if (contract := contract_of(leaf)) is not None))
        answers, doubts = await asyncio.gather(
            self._reads.read(head, [read for leaf in leaves for read in reads_of(leaf, wallet)]),
            asyncio.gather(*(self._doubt(head, contract) for contract in contracts)),
        )
        doubted = {contract: doubt for contract, doubt in zip(contracts, doubts, strict=True) if doubt is not None}
        findings = {}
        for leaf in leaves:
            contract = contract_of(leaf)
            if contract in doubted:
                findings[leaf] = Finding(None, need_of(leaf), doubted[contract], head)
            else:
                findings[leaf] = held(leaf, wallet, answers, head)
        return findings

    async def _doubt(self, head: Head, contract: bytes) -> str | None:
        """Why what is said at this address cannot be believed; None where there is a contract."""
        try:
            return None if await self._reads.is_contract(head, contract) else "there is no contract at this address"
        except ChainUnavailable as error:
            return error.detail

    def _parse(self, stored: StoredPolicy) -> Policy:
        key = (stored.id, stored.version)
        policy = self._parsed.get(key)
        if policy is None:
            policy = rules.parse(stored.document)
            self._parsed[key] = policy
            if len(self._parsed) > MAX_PARSED:
                self._parsed.popitem(last=False)
        return policy


def _wallet(account: str | None) -> str | None:
    """The wallet of an account; None for nobody and for accounts that are no wallet."""
    try:
        return None if account is None else wallet_of(account)
    except ValueError:
        return None


def _outcome(truth: Truth) -> Outcome:
    return _NAMES[truth]


def _tokens(findings: dict[Leaf, Finding]) -> tuple[str, ...]:
    """The tokens that the viewer watches with, as CAIP-19 names them."""
    return tuple(
        f"{leaf.chain}/erc721:{leaf.contract}/{token}"
        for leaf, found in findings.items()
        if isinstance(leaf, Erc721) and found.truth
        for token in found.owned
    )


def _results(findings: dict[Leaf, Finding]) -> tuple[LeafResult, ...]:
    return tuple(
        LeafResult(
            path=leaf.path,
            decision=_outcome(found.truth),
            need=found.need,
            have=found.have,
            chain=leaf.chain if isinstance(leaf, Holding) else None,
            block=found.head.number if found.head else None,
            block_hash=found.head.hash if found.head else None,
        )
        for leaf, found in findings.items()
    )


def _valid_until(now: int, ttl_s: float, findings: dict[Leaf, Finding]) -> int:
    """The oldest head's reading plus the TTL, and not beyond the next moment at which a time window changes its answer."""
    read_at = min((found.head.read_at_ms for found in findings.values() if found.head), default=now)
    turns = [
        ms
        for leaf in findings
        if isinstance(leaf, TimeWindow)
        for ms in (leaf.from_ms, leaf.until_ms)
        if ms is not None and ms > now
    ]
    return min([read_at + int(ttl_s * 1000), *turns])
