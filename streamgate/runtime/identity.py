"""Who is calling: access tokens verified on the spot, API keys resolved through auth.

An access token is a JWT (RFC 9068): ``typ at+jwt``, EdDSA over Ed25519 and nothing else, ``iss`` and ``aud`` of this
installation, ``exp``, ``iat``, ``jti``, ``sub`` (CAIP-10 account), ``role``, ``sid`` (the session it belongs to).
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from streamgate.contracts.auth import Access, PublicKey
from streamgate.domain.clock import Clock
from streamgate.domain.errors import Unauthenticated
from streamgate.domain.identity import ANONYMOUS, Caller, Prefix, Role, is_id
from streamgate.runtime.site import Site

ALGORITHM = "EdDSA"
TYPE = "at+jwt"
LEEWAY_S = 30
MAX_CREDENTIAL = 4096
KEYS_AGE_S = 60.0
KEYS_PAUSE_S = 5.0
RESOLVED_AGE_S = 5.0
MAX_RESOLVED = 1000
KEY_PREFIX = "sg_"
"""What API keys begin with; nothing else that is a bearer credential does."""

REFUSED = "This credential is not valid here. Sign in again, or check the API key."


def audience(site: Site) -> str:
    """The ``aud`` of access tokens: the API of this installation."""
    return f"{site.public_url}/api"


class _Claims(msgspec.Struct):
    sub: str
    role: str
    sid: str
    jti: str
    iat: int
    exp: int


@dataclass(slots=True)
class _Resolved:
    caller: Caller
    until: float


class Authenticator:
    """Implements `runtime.http.Authenticates`."""

    def __init__(self, site: Site, access: Access, clock: Clock) -> None:
        self._site = site
        self._access = access
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._keys_at = -KEYS_AGE_S
        self._refreshing = asyncio.Lock()
        self._resolved: OrderedDict[str, _Resolved] = OrderedDict()

    async def caller(self, authorization: str | None) -> Caller:
        if authorization is None:
            return ANONYMOUS
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not 1 <= len(credential) <= MAX_CREDENTIAL or not credential.isascii():
            raise Unauthenticated("Send the credential as: Authorization: Bearer ….")
        if credential.startswith(KEY_PREFIX):
            return await self._by_key(credential)
        return await self._by_token(credential)

    async def _by_key(self, key: str) -> Caller:
        now = self._clock.monotonic()
        known = self._resolved.get(key)
        if known is not None and known.until > now:
            return known.caller
        self._resolved.pop(key, None)
        caller = await self._access.resolve_key(key)
        self._resolved[key] = _Resolved(caller, now + RESOLVED_AGE_S)
        if len(self._resolved) > MAX_RESOLVED:
            self._resolved.popitem(last=False)
        return caller

    async def _by_token(self, token: str) -> Caller:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise Unauthenticated(REFUSED) from None
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or header.get("typ") != TYPE or "crit" in header or not isinstance(kid, str):
            raise Unauthenticated(REFUSED)
        key = await self._key(kid)
        if key is None:
            raise Unauthenticated(REFUSED)
        try:
            raw = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=audience(self._site),
                issuer=self._site.public_url,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "jti", "sid", "aud", "iss"]},
            )
            return _caller(raw)
        except (
            jwt.ExpiredSignatureError,
            jwt.InvalidTokenError,
            msgspec.ValidationError,
            KeyError,
            ValueError,
        ) as error:
            if isinstance(error, jwt.ExpiredSignatureError):
                raise Unauthenticated("The access token has expired; refresh it.") from None
            raise Unauthenticated(REFUSED) from None

    async def _key(self, kid: str) -> Ed25519PublicKey | None:
        """The key of that id; an unknown one makes us ask again, but not for every forged token."""
        age = self._clock.monotonic() - self._keys_at
        if age >= KEYS_AGE_S or (kid not in self._keys and age >= KEYS_PAUSE_S):
            async with self._refreshing:
                if self._clock.monotonic() - self._keys_at >= min(age, KEYS_PAUSE_S):
                    self._keys = {key.kid: _public(key) for key in await self._access.public_keys()}
                    self._keys_at = self._clock.monotonic()
        return self._keys.get(kid)


def _caller(raw: dict[str, Any]) -> Caller:
    claims = msgspec.convert(raw, _Claims)
    if not is_id(claims.sid, Prefix.SESSION):
        raise ValueError("not a session")
    return Caller(account=claims.sub, role=Role[claims.role.upper()], session_id=claims.sid)


def _public(key: PublicKey) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.x + "=" * (-len(key.x) % 4)))
