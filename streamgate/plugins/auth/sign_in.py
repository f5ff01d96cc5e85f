"""Signing in with a wallet: challenges, sessions, refresh, sign-out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
from urllib.parse import urlsplit

from eth_utils import to_checksum_address

from streamgate.contracts.auth import (
    Challenge,
    ChallengeRequest,
    CredentialEnded,
    RefreshRequest,
    SessionInfo,
    SessionPage,
    SessionTokens,
    SignIn,
)
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import Forbidden, NotFound, Unauthenticated, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id, new_id
from streamgate.plugins.auth import store
from streamgate.plugins.auth.accounts import account_of, chain_id_of, wallet_of
from streamgate.plugins.auth.roles import Roles
from streamgate.plugins.auth.settings import AuthSettings
from streamgate.plugins.auth.signatures import Signatures
from streamgate.plugins.auth.siwe import LARGEST_CHAIN_ID, MAX_BYTES, Malformed, SignInMessage, parse
from streamgate.plugins.auth.store import StoredChallenge, StoredSession
from streamgate.plugins.auth.tokens import AccessTokens, hashed
from streamgate.runtime.database import Database, Transaction
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.site import Site

REUSE_WINDOW_MS = 10_000
MAX_LISTED = 100
_BINDING = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_LETTERS = string.ascii_letters + string.digits
_NONCE_LENGTH = 22

REFUSED = (
    "The sign-in did not work: the message is not from here, was used, has expired, or is not signed by its wallet."
)


class SignInDesk:
    """Challenges and sessions, in SQL so that any replica can finish what another began."""

    def __init__(
        self,
        *,
        settings: AuthSettings,
        database: Database,
        outbox: Outbox,
        tokens: AccessTokens,
        signatures: Signatures,
        roles: Roles,
        site: Site,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbox = outbox
        self._tokens = tokens
        self._signatures = signatures
        self._roles = roles
        self._site = site
        self._clock = clock

    async def challenge(self, request: ChallengeRequest, origin: str | None) -> Challenge:
        """See `Access.challenge`."""
        address, chain_id = _wanted(request)
        self._check_origin(origin)
        if origin is not None and request.binding is None:
            raise ValidationFailed(
                "binding is mandatory for a web page: base64url SHA-256 of a secret that it keeps."
            ).at("/binding")
        if request.binding is not None and not _BINDING.match(request.binding):
            raise ValidationFailed("binding must be the base64url SHA-256 of a secret: 43 characters.").at("/binding")
        now = self._clock.now_ms()
        expires_ms = now + self._settings.challenge_s * 1000
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(_NONCE_LENGTH))
        domain = urlsplit(self._site.public_url).netloc
        message = SignInMessage(
            domain=domain,
            address=to_checksum_address(address),
            statement=f"Sign in to {domain}. This costs nothing and gives no access to your tokens.",
            uri=self._site.public_url,
            chain_id=chain_id,
            nonce=nonce,
            issued_at=_rfc3339(now),
            expiration_time=_rfc3339(expires_ms),
        ).text()
        async with self._database.write() as tx:
            await store.add_challenge(tx, hashed(message), StoredChallenge(address, request.binding, expires_ms))
        return Challenge(message=message, nonce=nonce, expires_at=instant(expires_ms))

    async def sign_in(self, request: SignIn, origin: str | None) -> SessionTokens:
        """See `Access.sign_in`. The challenge is consumed before anything else is looked at."""
        if len(request.message) > MAX_BYTES or len(request.signature) > MAX_BYTES:
            raise Unauthenticated(REFUSED)
        self._check_origin(origin)
        async with self._database.write() as tx:
            challenge = await store.take_challenge(tx, hashed(request.message))
        if challenge is None or challenge.expires_ms <= self._clock.now_ms():
            raise Unauthenticated(REFUSED)
        if origin is not None and challenge.binding is None:
            raise Unauthenticated(REFUSED)
        if challenge.binding is not None and not _is_secret_of(challenge.binding, request.binding_secret):
            raise Unauthenticated(REFUSED)
        address = _address_inside(request.message)
        if address != challenge.address or not self._signatures.by_address(address, request.message, request.signature):
            raise Unauthenticated(REFUSED)
        return await self._begin(account_of(address))

    async def refresh(self, request: RefreshRequest) -> SessionTokens:
        """See `Access.refresh`."""
        token_hash, now = hashed(request.refresh_token), self._clock.now_ms()
        successor = self._tokens.next_refresh(request.refresh_token)
        killed = False
        async with self._database.write() as tx:
            found = await store.get_refresh(tx, token_hash)
            session = await store.get_session(tx, found[0]) if found else None
            if found is None or session is None or not session.live(now):
                raise Unauthenticated("The session is over. Sign in again.")
            if await store.use_refresh(tx, token_hash, now):
                await store.add_refresh(tx, hashed(successor), session.id, now)
                await store.extend_session(tx, session.id, now + self._settings.session_s * 1000)
            elif found[1] is not None and now - found[1] > REUSE_WINDOW_MS:
                # Somebody has a token that was given up long ago: nobody can tell who is who, so the whole family ends.
                await self._end(tx, session.id)
                killed = True
        if killed:
            raise Unauthenticated("The session was ended, because an old refresh token was used. Sign in again.")
        return self._answer(session.account, session.id, successor)

    async def session(self, caller: Caller) -> SessionInfo:
        """Who the caller is."""
        caller.require(Role.VIEWER)
        stored = None
        if caller.session_id is not None:
            async with self._database.read() as connection:
                stored = await store.get_session(connection, caller.session_id)
        return SessionInfo(
            id=caller.session_id,
            account=caller.account or "",
            role=caller.role.name.lower(),
            created_at=instant(stored.created_ms) if stored else None,
            expires_at=instant(stored.expires_ms) if stored else None,
            current=True,
        )

    async def sign_out(self, caller: Caller) -> None:
        """End the session that the call was made under."""
        if caller.session_id is None:
            raise Forbidden("An API key has no session to sign out of; revoke the key instead.")
        async with self._database.write() as tx:
            await self._end(tx, caller.session_id)

    async def sessions(self, caller: Caller) -> SessionPage:
        """The caller's live sessions."""
        caller.require(Role.VIEWER)
        async with self._database.read() as connection:
            found = await store.live_sessions(connection, caller.account or "", self._clock.now_ms(), MAX_LISTED)
        role = caller.role.name.lower()
        return SessionPage(
            tuple(
                SessionInfo(
                    id=stored.id,
                    account=stored.account,
                    role=role,
                    created_at=instant(stored.created_ms),
                    expires_at=instant(stored.expires_ms),
                    current=stored.id == caller.session_id,
                )
                for stored in found
            )
        )

    async def revoke_session(self, caller: Caller, session_id: str) -> None:
        """End one of the caller's sessions."""
        stored = None
        if is_id(session_id, Prefix.SESSION):
            async with self._database.read() as connection:
                stored = await store.get_session(connection, session_id)
        if stored is None or not caller.owns(stored.account):
            raise NotFound("There is no such session.")
        async with self._database.write() as tx:
            await self._end(tx, session_id)

    async def live(self, session_id: str) -> bool:
        """Whether the session is neither ended nor over."""
        async with self._database.read() as connection:
            stored = await store.get_session(connection, session_id)
        return stored is not None and stored.live(self._clock.now_ms())

    async def sweep(self) -> None:
        """Periodic: forget what is long over."""
        now = self._clock.now_ms()
        async with self._database.write() as tx:
            await store.sweep(tx, now, now - 24 * 3600 * 1000)

    async def _begin(self, account: str) -> SessionTokens:
        now, session_id, token = self._clock.now_ms(), new_id(Prefix.SESSION), self._tokens.first_refresh()
        async with self._database.write() as tx:
            expires_ms = now + self._settings.session_s * 1000
            await store.add_session(tx, StoredSession(session_id, account, now, expires_ms, None))
            await store.add_refresh(tx, hashed(token), session_id, now)
        return self._answer(account, session_id, token)

    def _answer(self, account: str, session_id: str, refresh_token: str) -> SessionTokens:
        return SessionTokens(
            access_token=self._tokens.mint(account, self._roles.of(account), session_id),
            refresh_token=refresh_token,
            expires_in=self._tokens.life_s,
            account=account,
        )

    async def _end(self, tx: Transaction, session_id: str) -> None:
        if await store.end_session(tx, session_id, self._clock.now_ms()):
            await self._outbox.announce(tx, CredentialEnded(session_id=session_id))

    def _check_origin(self, origin: str | None) -> None:
        if origin is not None and origin.rstrip("/") not in self._site.allowed_origins:
            raise Forbidden("Sign-in is not open to pages of this origin (allowed_origins).")


def _wanted(request: ChallengeRequest) -> tuple[str, int]:
    """Address in lower case and chain id; `ValidationFailed` for anything but one complete way of naming them."""
    by_account = request.account is not None
    if by_account in {request.address is not None, request.chain_id is not None}:
        raise ValidationFailed("Name the wallet by address and chain_id, or by account (CAIP-10).").at("/address")
    try:
        if request.account is not None:
            chain_id = chain_id_of(request.account)
            return wallet_of(request.account), chain_id
        address = wallet_of(request.address or "")
    except ValueError as error:
        raise ValidationFailed(f"The wallet cannot be used: {error}.").at(
            "/account" if by_account else "/address"
        ) from None
    chain_id = request.chain_id or 0
    if not 1 <= chain_id <= LARGEST_CHAIN_ID:
        raise ValidationFailed("chain_id must be a positive number.").at("/chain_id")
    return address, chain_id


def _address_inside(message: str) -> str:
    """The address that stands in the signed bytes, in lower case."""
    try:
        return parse(message).address.lower()
    except Malformed:
        raise Unauthenticated(REFUSED) from None


def _is_secret_of(binding: str, secret: str | None) -> bool:
    if secret is None or len(secret) > 1024:
        return False
    digest = base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(digest, binding.encode())


def _rfc3339(ms: int) -> str:
    return instant(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
