"""What opens the API: our access tokens and keys, and nothing that looks like them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamgate.adapters.chain_jsonrpc import JsonRpcChains
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import Unauthenticated
from streamgate.domain.identity import ANONYMOUS, Prefix, Role, new_id
from streamgate.plugins.auth.tokens import AccessTokens
from streamgate.plugins.streaming.tokens import PlaybackTokens
from streamgate.runtime.database import Database
from streamgate.runtime.identity import Authenticator
from tests.support.access import ADMIN_KEY, SEED, access, site
from tests.support.clock import FakeClock

ACCOUNT = "eip155:1:0x" + "ab" * 20
SESSION = new_id(Prefix.SESSION)
KEY = Ed25519PrivateKey.from_private_bytes(SEED[1])
HEADERS = {"kid": SEED[0], "typ": "at+jwt"}


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Authenticator:
    clock = FakeClock()
    return Authenticator(site(tmp_path), access(database, clock, JsonRpcChains({}, clock), tmp_path), clock)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    values = {
        "iss": "https://films.example",
        "aud": "https://films.example/api",
        "sub": ACCOUNT,
        "role": "viewer",
        "sid": SESSION,
        "jti": "1",
        "iat": now,
        "exp": now + 600,
    } | changes
    return {name: value for name, value in values.items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=HEADERS if headers is None else headers)


async def test_our_token_and_our_keys_open(door: Authenticator, tmp_path: Path) -> None:
    token = AccessTokens((SEED,), site(tmp_path), SystemClock(), 600).mint(ACCOUNT, Role.CREATOR, SESSION)
    caller = await door.caller(f"Bearer {token}")
    assert (caller.account, caller.role, caller.session_id) == (ACCOUNT, Role.CREATOR, SESSION)
    assert (await door.caller(f"bearer {ADMIN_KEY}")).role is Role.ADMIN
    assert await door.caller(None) == ANONYMOUS


def public_pem() -> bytes:
    return KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def unsigned() -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', **HEADERS})}.{part(claims())}."


def hs256_with_the_public_key() -> str:
    import hashlib
    import hmac

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    body = f"{part(json.dumps({'alg': 'HS256', **HEADERS}).encode())}.{part(json.dumps(claims()).encode())}"
    return f"{body}.{part(hmac.new(public_pem(), body.encode(), hashlib.sha256).digest())}"


FORGED = {
    "another key": lambda: signed(Ed25519PrivateKey.generate()),
    "no signature": unsigned,
    "the public key as a shared secret": hs256_with_the_public_key,
    "an unknown kid": lambda: signed(headers={"kid": "two", "typ": "at+jwt"}),
    "a kid that is a path": lambda: signed(headers={"kid": "../../dev/null", "typ": "at+jwt"}),
    "no kid": lambda: signed(headers={"typ": "at+jwt"}),
    "a key of its own in the header": lambda: signed(
        Ed25519PrivateKey.generate(), headers={"typ": "at+jwt", "kid": "two", "jku": "https://evil.example/jwks.json"}
    ),
    "another type": lambda: signed(headers={"kid": SEED[0], "typ": "JWT"}),
    "an extension that must be understood": lambda: signed(headers={**HEADERS, "crit": ["b64"]}),
    "expired": lambda: signed(exp=int(time.time()) - 60),
    "from the future": lambda: signed(iat=int(time.time()) + 3600, exp=int(time.time()) + 7200),
    "another issuer": lambda: signed(iss="https://evil.example"),
    "another audience": lambda: signed(aud="https://other.example/api"),
    "no expiry": lambda: signed(exp=None),
    "no session": lambda: signed(sid=None),
    "a session that is none": lambda: signed(sid="ses_x"),
    "a role that is none": lambda: signed(role="root"),
    "a role that is no text": lambda: signed(role=3),
    "a playback token": lambda: PlaybackTokens(((1, b"k" * 32),)).mint(
        new_id(Prefix.PLAYBACK), new_id(Prefix.ASSET), int(time.time()) + 60
    ),
    "a key that never was": lambda: "sg_key_" + "x" * 43,
    "a refresh token": lambda: "sg_rt_" + "x" * 43,
    "nonsense": lambda: "x.y.z",
    "very long": lambda: "x" * 100_000,
    "nothing": lambda: "",
}


@pytest.mark.parametrize("name", FORGED)
async def test_nothing_else_does(door: Authenticator, name: str) -> None:
    with pytest.raises(Unauthenticated):
        await door.caller(f"Bearer {FORGED[name]()}")


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", ADMIN_KEY, "Bearer é"])
async def test_a_header_of_another_form_is_refused_and_not_taken_for_nobody(door: Authenticator, header: str) -> None:
    with pytest.raises(Unauthenticated):
        await door.caller(header)


async def test_any_changed_character_of_a_token_is_refused(door: Authenticator) -> None:
    token = signed()
    assert (await door.caller(f"Bearer {token}")).account == ACCOUNT
    head, body, mac = token.split(".")
    for part, text in enumerate((head, body, mac)):
        for at in range(0, len(text) - 1, 7):
            parts = [head, body, mac]
            parts[part] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
            with pytest.raises(Unauthenticated):
                await door.caller("Bearer " + ".".join(parts))
