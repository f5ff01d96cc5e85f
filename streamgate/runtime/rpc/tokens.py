"""Service tokens: who calls, said by the caller's own key, for one callee, for sixty seconds.

A JWT: ``typ svc+jwt``, EdDSA over Ed25519 and nothing else, ``iss`` the calling service, ``aud`` the called one, ``iat``, ``exp``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ConfigurationError, Unauthenticated
from streamgate.runtime.secrets import read_secret

TYPE = "svc+jwt"
ALGORITHM = "EdDSA"
LIFETIME_S = 60
RENEW_S = 30.0
LEEWAY_S = 10
MOST_GOOD = 1000
"""Tokens that are known to be good; a replica of a service sends one at a time."""


class ServiceSigner:
    """Tokens of ``service``; each is used for half its life."""

    def __init__(self, service: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._service = service
        self._key = key
        self._clock = clock
        self._made: dict[str, tuple[float, str]] = {}

    def token(self, callee: str) -> str:
        """A token that is good at ``callee``."""
        now = self._clock.monotonic()
        known = self._made.get(callee)
        if known is not None and now - known[0] < RENEW_S:
            return known[1]
        issued = self._clock.now_ms() // 1000
        claims = {"iss": self._service, "aud": callee, "iat": issued, "exp": issued + LIFETIME_S}
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": TYPE})
        self._made[callee] = (now, token)
        return token


class ServiceVerifier:
    """Knows the public keys of the services and accepts tokens for ``service`` alone."""

    def __init__(self, service: str, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._service = service
        self._keys = keys
        self._good: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def caller(self, token: str) -> str | None:
        """The calling service; None when ``token`` is no service token at all. `Unauthenticated` for one that is not good.

        A token that was found good is good again until it ends: it comes with every call of half a minute.
        """
        known = self._good.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            return None
        if header.get("typ") != TYPE:
            return None
        try:
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
            key = self._keys.get(claimed) if isinstance(claimed, str) else None
            if key is None or "crit" in header:
                raise Unauthenticated("No such service may call this one.")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._service,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.InvalidTokenError:
            raise Unauthenticated("The service token is not valid here.") from None
        self._good[token] = (str(claimed), float(claims["exp"]) + LEEWAY_S)
        if len(self._good) > MOST_GOOD:
            self._good.popitem(last=False)
        return str(claimed)


def private_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in a PEM file (PKCS #8) that its owner alone can read; else `ConfigurationError`."""
    try:
        key = load_pem_private_key(read_secret(path), password=None)
    except FileNotFoundError:
        raise ConfigurationError(f"The service key file {path} does not exist.") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no private key in PEM.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is no Ed25519 key.")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file; else `ConfigurationError`."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The public key file {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no public key in PEM.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path} is no Ed25519 key.")
    return key
