"""Routes of sign-in, API keys and policies."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from streamgate.contracts.auth import (
    Access,
    ApiKey,
    Challenge,
    ChallengeRequest,
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
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm

Origin = Annotated[str | None, HeaderParameter(name="origin", description="Set by browsers.")]
Limit = Annotated[int, QueryParameter(name="limit", description="Items on a page, 1 to 100.")]
Cursor = Annotated[str | None, QueryParameter(name="cursor", description="What the page before named as next_cursor.")]


class KeySet(msgspec.Struct, frozen=True):
    """A JWK Set (RFC 7517 section 5)."""

    keys: tuple[PublicKey, ...]


def controllers(access: Access) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class KeySetController(Controller):
        path = "/.well-known"
        tags = ("auth",)

        @get("/jwks.json", opt=least(Role.ANONYMOUS), operation_id="keySet", summary="Keys that verify access tokens")
        async def keys(self) -> Response[KeySet]:
            """The JWK Set, cacheable for a minute."""
            return Response(KeySet(await access.public_keys()), headers={"cache-control": "public, max-age=60"})

    return [KeySetController, *_sign_in(access), *_keys(access), *_policies(access)]


def _sign_in(access: Access) -> list[type[Controller]]:
    class SignInController(Controller):
        path = "/api/v1/auth"
        tags = ("auth",)
        opt = realm("sessions")

        @post(
            "/challenges",
            opt=least(Role.ANONYMOUS),
            operation_id="createChallenge",
            summary="Ask for a sign-in message",
        )
        async def challenge(
            self, caller: NamedDependency[Caller], data: JSONBody[ChallengeRequest], origin: Origin = None
        ) -> Challenge:
            """An EIP-4361 message to sign with the wallet, good for five minutes and one use."""
            return await access.challenge(caller, data, origin)

        @post("/sessions", opt=least(Role.ANONYMOUS), operation_id="signIn", summary="Sign in")
        async def sign_in(
            self, caller: NamedDependency[Caller], data: JSONBody[SignIn], origin: Origin = None
        ) -> SessionTokens:
            """Exchange the signed message for an access token and a refresh token."""
            return await access.sign_in(caller, data, origin)

        @post(
            "/sessions/refresh",
            status_code=200,
            opt=least(Role.ANONYMOUS),
            operation_id="refreshSession",
            summary="Refresh a session",
        )
        async def refresh(self, caller: NamedDependency[Caller], data: JSONBody[RefreshRequest]) -> SessionTokens:
            """Rotate the refresh token. Using an old one ends the session."""
            return await access.refresh(caller, data)

        @get("/session", opt=least(Role.VIEWER), operation_id="readSession", summary="Who am I")
        async def session(self, caller: NamedDependency[Caller]) -> SessionInfo:
            """Account, role and session of the credential."""
            return await access.session(caller)

        @delete("/session", opt=least(Role.VIEWER), operation_id="signOut", summary="Sign out")
        async def sign_out(self, caller: NamedDependency[Caller]) -> None:
            """End the session and the playback that was started under it."""
            await access.sign_out(caller)

        @get("/sessions", opt=least(Role.VIEWER), operation_id="listSessions", summary="List one's sessions")
        async def sessions(self, caller: NamedDependency[Caller]) -> SessionPage:
            """Live sessions, newest first."""
            return await access.sessions(caller)

        @delete(
            "/sessions/{session_id:str}", opt=least(Role.VIEWER), operation_id="revokeSession", summary="End a session"
        )
        async def revoke(self, caller: NamedDependency[Caller], session_id: FromPath[str]) -> None:
            """End one of one's sessions."""
            await access.revoke_session(caller, session_id)

    return [SignInController]


def _keys(access: Access) -> list[type[Controller]]:
    class ApiKeyController(Controller):
        path = "/api/v1/auth/api-keys"
        tags = ("auth",)
        opt = realm("keys")

        @get("/", opt=least(Role.CREATOR), operation_id="listKeys", summary="List API keys")
        async def listing(self, caller: NamedDependency[Caller]) -> KeyPage:
            """One's keys, newest first; an administrator sees all."""
            return await access.keys(caller)

        @post("/", opt=least(Role.CREATOR), operation_id="createKey", summary="Make an API key")
        async def create(self, caller: NamedDependency[Caller], data: JSONBody[KeyRequest]) -> ApiKey:
            """The key is shown in this answer and never again."""
            return await access.create_key(caller, data)

        @delete("/{key_id:str}", opt=least(Role.CREATOR), operation_id="revokeKey", summary="End an API key")
        async def revoke(self, caller: NamedDependency[Caller], key_id: FromPath[str]) -> None:
            """End a key and the playback that was started under it."""
            await access.revoke_key(caller, key_id)

    return [ApiKeyController]


def _policies(access: Access) -> list[type[Controller]]:
    class PolicyController(Controller):
        path = "/api/v1/policies"
        tags = ("policies",)
        opt = realm("policies")

        @get("/", opt=least(Role.CREATOR), operation_id="listPolicies", summary="List policies")
        async def listing(
            self, caller: NamedDependency[Caller], limit: Limit = 20, cursor: Cursor = None
        ) -> PolicyPage:
            """One's policies, newest first; an administrator sees all."""
            return await access.policies(caller, limit, cursor)

        @post("/", opt=least(Role.CREATOR), operation_id="createPolicy", summary="Store a policy")
        async def create(self, caller: NamedDependency[Caller], data: JSONBody[PolicyDraft]) -> PolicyView:
            """See docs/how-to/policies.md for the document."""
            return await access.create_policy(caller, data)

        @post(
            "/evaluate",
            status_code=200,
            opt=least(Role.CREATOR, reads=True),
            operation_id="evaluatePolicy",
            summary="Try a policy on a wallet",
        )
        async def evaluate(self, caller: NamedDependency[Caller], data: JSONBody[EvaluationRequest]) -> Evaluation:
            """A dry run: nothing is stored or granted."""
            return await access.evaluate(caller, data)

        @get("/{policy_id:str}", opt=least(Role.CREATOR), operation_id="getPolicy", summary="Read a policy")
        async def read(self, caller: NamedDependency[Caller], policy_id: FromPath[str]) -> PolicyView:
            """The newest version."""
            return await access.policy(caller, policy_id)

        @put("/{policy_id:str}", opt=least(Role.CREATOR), operation_id="replacePolicy", summary="Change a policy")
        async def replace(
            self, caller: NamedDependency[Caller], policy_id: FromPath[str], data: JSONBody[PolicyDraft]
        ) -> PolicyView:
            """Makes a new version; live playback is decided anew."""
            return await access.replace_policy(caller, policy_id, data)

    return [PolicyController]
