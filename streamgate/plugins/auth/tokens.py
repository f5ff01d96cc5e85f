"""Access tokens: signed here, verified everywhere (`runtime.identity`). Refresh tokens: opaque, each with one successor."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamgate.contracts.auth import PublicKey
from streamgate.domain.clock import Clock
from streamgate.domain.errors import ConfigurationError
from streamgate.domain.identity import Role
from streamgate.runtime.identity import ALGORITHM, TYPE, audience
from streamgate.runtime.secrets import keyed_secrets, read_secret, secret_file
from streamgate.runtime.site import Site

REFRESH_PREFIX = "sg_rt_"


def hashed(secret: str) -> str:
    """What is stored of a random secret of 256 bits: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class AccessTokens:
    """Signs with the first key, publishes all. ``seeds``: (kid, 32 secret bytes)."""

    def __init__(self, seeds: tuple[tuple[str, bytes], ...], site: Site, clock: Clock, life_s: int) -> None:
        keys = [(kid, Ed25519PrivateKey.from_private_bytes(seed)) for kid, seed in seeds]
        self._kid, self._key = keys[0]
        self._public = tuple(PublicKey(kid=kid, x=_x(key)) for kid, key in keys)
        self._refresh_secret = hmac.digest(seeds[0][1], b"streamgate refresh successor", "sha256")
        self._site = site
        self._clock = clock
        self.life_s = life_s

    def mint(self, account: str, role: Role, session_id: str) -> str:
        """An access token (RFC 9068)."""
        now = self._clock.now_ms() // 1000
        claims = {
            "iss": self._site.public_url,
            "aud": audience(self._site),
            "sub": account,
            "role": role.name.lower(),
            "sid": session_id,
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "exp": now + self.life_s,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid, "typ": TYPE})

    def public_keys(self) -> tuple[PublicKey, ...]:
        """The JWK Set's members."""
        return self._public

    def first_refresh(self) -> str:
        """A fresh refresh token."""
        return REFRESH_PREFIX + secrets.token_urlsafe(32)

    def next_refresh(self, token: str) -> str:
        """The one successor of a refresh token: the same whenever it is asked for, so that a lost answer can be repeated."""
        successor = hmac.digest(self._refresh_secret, token.encode(), "sha256")
        return REFRESH_PREFIX + base64.urlsafe_b64encode(successor).rstrip(b"=").decode()


def _x(key: Ed25519PrivateKey) -> str:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def load_seeds(configured: Path | None, data_dir: Path) -> tuple[tuple[str, bytes], ...]:
    """The seeds of the configured file, or those of the data directory, made at first start."""
    path = configured or data_dir / "keys" / "signing.keys"
    try:
        content = secret_file(path, _fresh) if configured is None else read_secret(path)
    except FileNotFoundError:
        raise ConfigurationError(f"The signing keys file {path} does not exist.") from None
    return tuple(keyed_secrets(content, path).items())


def _fresh() -> bytes:
    return f"{secrets.token_hex(4)} {os.urandom(32).hex()}\n".encode()
