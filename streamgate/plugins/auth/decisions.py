"""The gate's answers: a policy evaluated for a wallet, at one block of every chain it names, with reasons.

A leaf is false only where its standard says so; anything that could not be read, or does not look like the standard, is
unknown, and unknown never grants, not even under ``not``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from streamgate.contracts.auth import Decision, DecisionRequest, Evaluation, EvaluationRequest, LeafResult
from streamgate.domain import policy as rules
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import ChainUnavailable, ValidationFailed
from streamgate.domain.identity import Caller, Role
from streamgate.domain.policy import Allowlist, Erc721, Leaf, Policy, TimeWindow, Truth
from streamgate.plugins.auth.accounts import wallet_of
from streamgate.plugins.auth.chain_reads import BALANCE_OF, OWNER_OF, ChainReads, address, uint, word
from streamgate.plugins.auth.policies import PolicyShelf
from streamgate.plugins.auth.store import StoredPolicy
from streamgate.ports.chain import Call, Head, Returned, Reverted

MAX_PARSED = 256
Outcome = Literal["allow", "deny", "unknown"]
_NAMES: dict[Truth, Outcome] = {True: "allow", False: "deny", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of a leaf. ``need`` and ``have`` are for people."""

    truth: Truth
    need: str
    have: str
    head: Head | None = None


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
        truth, findings = await self._evaluate(policy, wallet, None)
        ttl_s = policy.ttl_s or self._default_ttl_s
        return Decision(
            outcome=_outcome(truth),
            leaves=_results(findings),
            policy_version=stored.version,
            valid_until_ms=_valid_until(now, ttl_s, findings),
            max_staleness_s=ttl_s,
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

    async def _evaluate(self, policy: Policy, wallet: str, block: int | None) -> tuple[Truth, dict[Leaf, Finding]]:
        """The policy's value and what was found of each leaf; one block per chain for all of them."""
        tag = policy.finality if block is None else hex(block)
        leaves = list(dict.fromkeys(policy.leaves()))
        chains = {leaf.chain for leaf in leaves if isinstance(leaf, Erc721)}
        heads = dict(zip(chains, await asyncio.gather(*(self._head(chain, tag) for chain in chains)), strict=True))
        found = await asyncio.gather(*(self._find(leaf, wallet, heads) for leaf in leaves))
        findings = dict(zip(leaves, found, strict=True))
        return rules.evaluate(policy.root, lambda leaf: findings[leaf].truth), findings

    async def _head(self, chain: str, tag: str) -> Head | ChainUnavailable:
        try:
            return await self._reads.head(chain, tag)
        except ChainUnavailable as error:
            return error

    async def _find(self, leaf: Leaf, wallet: str, heads: dict[str, Head | ChainUnavailable]) -> Finding:
        if isinstance(leaf, Allowlist):
            listed = wallet in leaf.addresses
            return Finding(listed, "to be on the list", "on the list" if listed else "not on the list")
        if isinstance(leaf, TimeWindow):
            return self._in_window(leaf)
        need = _need(leaf)
        head = heads[leaf.chain]
        if isinstance(head, ChainUnavailable):
            return Finding(None, need, head.detail)
        try:
            return await self._owns(leaf, wallet, need, head)
        except ChainUnavailable as error:
            return Finding(None, need, error.detail, head)

    def _in_window(self, leaf: TimeWindow) -> Finding:
        now = self._clock.now_ms()
        inside = (leaf.from_ms is None or now >= leaf.from_ms) and (leaf.until_ms is None or now < leaf.until_ms)
        bounds = [
            f"{word} {instant(ms).isoformat()}"
            for word, ms in (("from", leaf.from_ms), ("until", leaf.until_ms))
            if ms is not None
        ]
        return Finding(inside, " ".join(bounds), f"now {instant(now).isoformat(timespec='seconds')}")

    async def _owns(self, leaf: Erc721, wallet: str, need: str, head: Head) -> Finding:
        contract = bytes.fromhex(leaf.contract[2:])
        if not leaf.token_ids:
            held = uint(await self._reads.call(head, Call(contract, BALANCE_OF + word(wallet))))
            if held is None:
                return await self._strange(contract, need, head)
            return Finding(held >= leaf.minimum, need, f"{held}", head)
        answers = await asyncio.gather(
            *(self._reads.call(head, Call(contract, OWNER_OF + word(token))) for token in leaf.token_ids)
        )
        if any(_is_strange(answer) for answer in answers):
            return await self._strange(contract, need, head)
        held = sum(address(answer) == wallet for answer in answers)
        return Finding(held >= leaf.minimum, need, f"{held} of them", head)

    async def _strange(self, contract: bytes, need: str, head: Head) -> Finding:
        """The contract did not answer as an ERC-721 does: a mistake in the policy, and no ground for any answer."""
        if not await self._reads.has_code(head, contract):
            return Finding(None, need, "there is no contract at this address", head)
        return Finding(None, need, "the contract does not answer as ERC-721", head)

    def _parse(self, stored: StoredPolicy) -> Policy:
        key = (stored.id, stored.version)
        policy = self._parsed.get(key)
        if policy is None:
            policy = rules.parse(stored.document)
            self._parsed[key] = policy
            if len(self._parsed) > MAX_PARSED:
                self._parsed.popitem(last=False)
        return policy


def _is_strange(answer: Returned | Reverted) -> bool:
    """`ownerOf` of a token that does not exist reverts (ERC-721); anything else that is no address is not of the standard."""
    return isinstance(answer, Returned) and address(answer) is None


def _wallet(account: str | None) -> str | None:
    """The wallet of an account; None for nobody and for accounts that are no wallet."""
    try:
        return None if account is None else wallet_of(account)
    except ValueError:
        return None


def _outcome(truth: Truth) -> Outcome:
    return _NAMES[truth]


def _need(leaf: Erc721) -> str:
    which = (
        f" of {', '.join(map(str, leaf.token_ids[:5]))}{', …' if len(leaf.token_ids) > 5 else ''}"
        if leaf.token_ids
        else ""
    )
    return f"at least {leaf.minimum}{which} of {leaf.contract}"


def _results(findings: dict[Leaf, Finding]) -> tuple[LeafResult, ...]:
    return tuple(
        LeafResult(
            path=leaf.path,
            decision=_outcome(found.truth),
            need=found.need,
            have=found.have,
            chain=leaf.chain if isinstance(leaf, Erc721) else None,
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
