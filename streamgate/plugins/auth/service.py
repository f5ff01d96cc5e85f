"""Who somebody is, and what they may watch: one face over sign-in, keys, policies and decisions."""

from __future__ import annotations

from streamgate.contracts.auth import (
    ApiKey,
    Challenge,
    ChallengeRequest,
    Decision,
    DecisionRequest,
    Evaluation,
    EvaluationRequest,
    KeyPage,
    KeyRequest,
    PolicyDraft,
    PolicyPage,
    PolicyView,
    PublicKey,
    RefreshRequest,
    SessionInfo,
    SessionPage,
    SessionTokens,
    SignIn,
)
from streamgate.contracts.metadata import PolicySummary
from streamgate.domain.identity import Caller
from streamgate.plugins.auth.decisions import Judge
from streamgate.plugins.auth.keys import KeyRing
from streamgate.plugins.auth.policies import PolicyShelf
from streamgate.plugins.auth.sign_in import SignInDesk
from streamgate.plugins.auth.tokens import AccessTokens


class AccessService:
    """Implements `contracts.auth.Access`."""

    def __init__(
        self, *, desk: SignInDesk, keys: KeyRing, policies: PolicyShelf, judge: Judge, tokens: AccessTokens
    ) -> None:
        self._desk = desk
        self._keys = keys
        self._policies = policies
        self._judge = judge
        self._tokens = tokens

    async def challenge(self, caller: Caller, request: ChallengeRequest, origin: str | None) -> Challenge:
        return await self._desk.challenge(request, origin)

    async def sign_in(self, caller: Caller, request: SignIn, origin: str | None) -> SessionTokens:
        return await self._desk.sign_in(request, origin)

    async def refresh(self, caller: Caller, request: RefreshRequest) -> SessionTokens:
        return await self._desk.refresh(request)

    async def session(self, caller: Caller) -> SessionInfo:
        return await self._desk.session(caller)

    async def sign_out(self, caller: Caller) -> None:
        await self._desk.sign_out(caller)

    async def sessions(self, caller: Caller) -> SessionPage:
        return await self._desk.sessions(caller)

    async def revoke_session(self, caller: Caller, session_id: str) -> None:
        await self._desk.revoke_session(caller, session_id)

    async def create_key(self, caller: Caller, request: KeyRequest) -> ApiKey:
        return await self._keys.create(caller, request)

    async def keys(self, caller: Caller) -> KeyPage:
        return await self._keys.list(caller)

    async def revoke_key(self, caller: Caller, key_id: str) -> None:
        await self._keys.revoke(caller, key_id)

    async def create_policy(self, caller: Caller, draft: PolicyDraft) -> PolicyView:
        return await self._policies.create(caller, draft)

    async def policies(self, caller: Caller, limit: int, cursor: str | None) -> PolicyPage:
        return await self._policies.list(caller, limit, cursor)

    async def policy(self, caller: Caller, policy_id: str) -> PolicyView:
        return await self._policies.get(caller, policy_id)

    async def replace_policy(self, caller: Caller, policy_id: str, draft: PolicyDraft) -> PolicyView:
        return await self._policies.replace(caller, policy_id, draft)

    async def evaluate(self, caller: Caller, request: EvaluationRequest) -> Evaluation:
        return await self._judge.evaluate(caller, request)

    async def attachable(self, caller: Caller, policy_id: str) -> PolicySummary:
        return await self._policies.attachable(caller, policy_id)

    async def summaries(self, policy_ids: tuple[str, ...]) -> tuple[PolicySummary, ...]:
        return await self._policies.summaries(policy_ids)

    async def resolve_key(self, key: str) -> Caller:
        return await self._keys.resolve(key)

    async def public_keys(self) -> tuple[PublicKey, ...]:
        return self._tokens.public_keys()

    async def credential_live(self, session_id: str | None, key_id: str | None) -> bool:
        if session_id is not None and not await self._desk.live(session_id):
            return False
        return key_id is None or await self._keys.live(key_id)

    async def decide(self, request: DecisionRequest) -> Decision:
        return await self._judge.decide(request)
