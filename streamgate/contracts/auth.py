"""Access, owned by the auth service: wallets, sign-in, tokens, API keys, policies and decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from streamgate.contracts.declare import contract, fact, user
from streamgate.contracts.metadata import PolicySummary
from streamgate.domain.identity import Caller, Role


class ChallengeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either ``address`` and ``chain_id``, or ``account`` (CAIP-10). ``binding``: base64url SHA-256 of a secret."""

    address: str | None = None
    chain_id: int | None = None
    account: str | None = None
    binding: str | None = None


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The EIP-4361 message to sign, exactly as it stands."""

    message: str
    nonce: str
    expires_at: datetime


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The challenge's message, its EIP-191 signature (0x hex, 65 bytes or 64 of EIP-2098), the secret of its binding."""

    message: str
    signature: str
    binding_secret: str | None = None


class SessionTokens(msgspec.Struct, frozen=True, kw_only=True):
    """``access_token``: EdDSA JWT (RFC 9068, ``typ at+jwt``); ``expires_in`` seconds. ``account``: CAIP-10."""

    access_token: str
    refresh_token: str
    expires_in: int
    account: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (a scheme name)


class RefreshRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: str


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in session as its holder sees it."""

    id: str | None
    account: str
    role: str
    created_at: datetime | None = None
    expires_at: datetime | None = None
    current: bool = False


class SessionPage(msgspec.Struct, frozen=True):
    items: tuple[SessionInfo, ...]
    next_cursor: str | None = None


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``role`` at most the caller's own; ``expires_in`` seconds, None for no end.

    ``scopes``: what the key is narrowed to (`domain.identity.SCOPES`), None for everything that the role may. A narrowed
    key makes only keys that are narrowed at least as much.
    """

    name: str
    scopes: tuple[str, ...] | None = None
    role: Literal["viewer", "creator", "admin"] = "creator"
    expires_in: int | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. ``key`` is there only in the answer that made it; afterwards only ``prefix`` is shown."""

    id: str
    name: str
    account: str
    role: str
    prefix: str
    created_at: datetime
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    key: str | None = None


class KeyPage(msgspec.Struct, frozen=True):
    items: tuple[ApiKey, ...]
    next_cursor: str | None = None


class PolicyDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy to store; ``document`` is the JSON of domain/policy (``{"v": 1, "expr": …, "options": …}``)."""

    name: str
    document: dict[str, Any]


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored policy. Every change makes a new version; films follow the newest."""

    id: str
    version: int
    name: str
    document: dict[str, Any]
    created_at: datetime
    warnings: tuple[str, ...] = ()


class PolicyPage(msgspec.Struct, frozen=True):
    items: tuple[PolicyView, ...]
    next_cursor: str | None = None


class LeafResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one leaf said: where it stands (JSON pointer into the expression), needed, had, read at which block."""

    path: str
    decision: Literal["allow", "deny", "unknown"]
    need: str
    have: str
    chain: str | None = None
    block: int | None = None
    block_hash: str | None = None


class DecisionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """May ``account`` watch ``asset_id`` under ``policy_id``? ``policy_id`` None: nobody may.

    ``token_ids``: the tokens that the viewer names (decimal); under a policy with seats no others are looked at.
    """

    account: str | None
    asset_id: str
    policy_id: str | None
    token_ids: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's answer. Only ``allow`` grants; ``unknown`` is no.

    ``valid_until_ms``: wall time (ms since the epoch) until which ``allow`` may be served on: the moment the chain
    head used was read plus the policy's ``ttl_s``. ``max_staleness_s``: how long a loss may go unnoticed.
    ``tokens`` (CAIP-19): what is watched with, where each has only so many seats (``seats_per_token``).
    """

    outcome: Literal["allow", "deny", "unknown"]
    leaves: tuple[LeafResult, ...]
    policy_version: int
    valid_until_ms: int
    max_staleness_s: float
    tokens: tuple[str, ...] = ()
    seats_per_token: int | None = None


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dry run: a ``document``, or the stored policy ``policy_id``, for a wallet (CAIP-10 or address), at a block or now."""

    account: str
    document: dict[str, Any] | None = None
    policy_id: str | None = None
    block: int | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate would have said."""

    decision: Literal["allow", "deny", "unknown"]
    leaves: tuple[LeafResult, ...]
    warnings: tuple[str, ...] = ()


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """One member of a JWK Set (RFC 7517, RFC 8037)."""

    kid: str
    x: str
    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"


@fact("auth.credential_ended")
class CredentialEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in session, its refresh family or an API key ended: playback started under it ends too."""

    session_id: str | None = None
    key_id: str | None = None


@fact("auth.policy_changed")
class PolicyChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A policy has a new version: live playback under it is decided anew."""

    policy_id: str
    version: int


@contract(
    service="auth",
    routes=(
        "/.well-known/jwks.json",
        "/api/v1/auth/challenges",
        "/api/v1/auth/sessions",
        "/api/v1/auth/sessions/refresh",
        "/api/v1/auth/sessions/{session_id}",
        "/api/v1/auth/session",
        "/api/v1/auth/api-keys",
        "/api/v1/auth/api-keys/{key_id}",
        "/api/v1/policies",
        "/api/v1/policies/{policy_id}",
        "/api/v1/policies/evaluate",
    ),
)
class Access(Protocol):
    """Who somebody is, and what they may watch."""

    @user(Role.ANONYMOUS, "sessions:write")
    async def challenge(self, caller: Caller, request: ChallengeRequest, origin: str | None) -> Challenge:
        """A message that the server wrote, to be signed within five minutes and used once.

        ``origin`` is the request's Origin header; when present it must be allowed and ``binding`` is mandatory.
        """
        ...

    @user(Role.ANONYMOUS, "sessions:write")
    async def sign_in(self, caller: Caller, request: SignIn, origin: str | None) -> SessionTokens:
        """Exchange a signed challenge for a session. `Unauthenticated` for anything that is not exactly right."""
        ...

    @user(Role.ANONYMOUS, "sessions:write")
    async def refresh(self, caller: Caller, request: RefreshRequest) -> SessionTokens:
        """Rotate a refresh token. Its reuse after 10 s kills the whole family; within 10 s it gives the same successor."""
        ...

    @user(Role.VIEWER, "sessions:read")
    async def session(self, caller: Caller) -> SessionInfo:
        """Who the caller is."""
        ...

    @user(Role.VIEWER, "sessions:write")
    async def sign_out(self, caller: Caller) -> None:
        """End the caller's session; announces `CredentialEnded`."""
        ...

    @user(Role.VIEWER, "sessions:read")
    async def sessions(self, caller: Caller) -> SessionPage:
        """The caller's live sessions, newest first."""
        ...

    @user(Role.VIEWER, "sessions:write")
    async def revoke_session(self, caller: Caller, session_id: str) -> None:
        """End one of the caller's sessions; `NotFound` for anybody else's."""
        ...

    @user(Role.CREATOR, "keys:write")
    async def create_key(self, caller: Caller, request: KeyRequest) -> ApiKey:
        """A new API key; the only answer that shows it."""
        ...

    @user(Role.CREATOR, "keys:read")
    async def keys(self, caller: Caller) -> KeyPage:
        """The caller's API keys; an administrator sees all."""
        ...

    @user(Role.CREATOR, "keys:write")
    async def revoke_key(self, caller: Caller, key_id: str) -> None:
        """End an API key; announces `CredentialEnded`."""
        ...

    @user(Role.CREATOR, "policies:write")
    async def create_policy(self, caller: Caller, draft: PolicyDraft) -> PolicyView:
        """Store a policy; `ValidationFailed` names every wrong member by JSON pointer."""
        ...

    @user(Role.CREATOR, "policies:read")
    async def policies(self, caller: Caller, limit: int, cursor: str | None) -> PolicyPage:
        """The caller's policies, newest first; an administrator sees all."""
        ...

    @user(Role.CREATOR, "policies:read")
    async def policy(self, caller: Caller, policy_id: str) -> PolicyView:
        """The newest version; `NotFound` unless the caller owns it."""
        ...

    @user(Role.CREATOR, "policies:write")
    async def replace_policy(self, caller: Caller, policy_id: str, draft: PolicyDraft) -> PolicyView:
        """A new version; announces `PolicyChanged`."""
        ...

    @user(Role.CREATOR, "policies:read")
    async def evaluate(self, caller: Caller, request: EvaluationRequest) -> Evaluation:
        """What a policy says of a wallet, with nothing granted; `ValidationFailed` or `NotFound` as for storing it."""
        ...

    async def attachable(self, caller: Caller, policy_id: str) -> PolicySummary:
        """The policy, if the caller may attach it to a film (owns it); else `NotFound`."""
        ...

    async def summaries(self, policy_ids: tuple[str, ...]) -> tuple[PolicySummary, ...]:
        """Names of policies for listings; unknown ids are left out."""
        ...

    async def resolve_key(self, key: str) -> Caller:
        """Who an API key (or the administrator key) is; `Unauthenticated` when it is none, ended or expired."""
        ...

    async def public_keys(self) -> tuple[PublicKey, ...]:
        """The keys that verify access tokens now."""
        ...

    async def credential_live(self, session_id: str | None, key_id: str | None) -> bool:
        """Whether the session or key is still good, asked before playback is minted under it."""
        ...

    async def decide(self, request: DecisionRequest) -> Decision:
        """Evaluate the policy's newest version now. Never raises for a chain that is away: that is ``unknown``.

        Answers may be shared between callers for as long as they are valid (single-flight, cached by block).
        """
        ...
