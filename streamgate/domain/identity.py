"""Who is calling, and the ids of things.

An id is ``<prefix>_<20 characters>``: 96 bits (48 of milliseconds since the epoch, 48 random) in lower-case
Crockford base32, so that ids sort by time of birth and fit the 12 bytes that a playback token has for them.
"""

from __future__ import annotations

import enum
import os
import re
import time

import msgspec

from streamgate.domain.errors import Forbidden, Unauthenticated

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_ID = re.compile(r"[a-z]{3}_[0-9a-hjkmnp-tv-z]{20}\Z")


class Prefix(enum.StrEnum):
    """The kinds of things that have ids."""

    ASSET = "ast"
    UPLOAD = "upl"
    JOB = "job"
    POLICY = "pol"
    PLAYBACK = "pbs"
    SESSION = "ses"
    KEY = "key"
    EVENT = "evt"
    ENTITLEMENT = "ent"
    PLAN = "pln"


def new_id(prefix: Prefix) -> str:
    """A fresh id; two made in the same millisecond differ with probability 1 - 2^-48."""
    return id_text(prefix, (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(6))


def id_text(prefix: Prefix, raw: bytes) -> str:
    """The id whose 12 bytes are ``raw``."""
    if len(raw) != 12:
        raise ValueError("an id has 12 bytes")
    number = int.from_bytes(raw, "big")
    return f"{prefix.value}_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(95, -1, -5))


def id_bytes(text: str) -> bytes:
    """The 12 bytes of an id; `ValueError` for anything that `id_text` would not have written."""
    if not _ID.match(text):
        raise ValueError("not an id")
    number = 0
    for character in text[4:]:
        number = number << 5 | _VALUES[character]
    if number >> 96:
        raise ValueError("not an id")
    return number.to_bytes(12, "big")


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether ``text`` is a well-formed id of that kind; says nothing about whether it exists."""
    if not text.startswith(f"{prefix.value}_"):
        return False
    try:
        id_bytes(text)
    except ValueError:
        return False
    return True


class Role(enum.IntEnum):
    """What a caller may do; each role contains those below it."""

    ANONYMOUS = 0
    VIEWER = 1
    CREATOR = 2
    ADMIN = 3


REALMS = ("assets", "uploads", "playback", "policies", "jobs", "keys", "sessions", "cache", "system")
SCOPES = tuple(f"{realm}:{access}" for realm in REALMS for access in ("read", "write"))
"""What an API key may be narrowed to: reading or changing one part of the API. Writing does not include reading."""

ADMIN_ACCOUNT = "admin"
"""The built-in account that the administrator key acts as."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a call. Made only by the edge that verified a credential; never taken from a request body.

    ``account`` is a CAIP-10 id, `ADMIN_ACCOUNT`, or None for nobody. A key pair is the same person on every EVM
    chain, so its account is always written ``eip155:1:0x…`` (address in lower case), whichever chain it signed for.
    ``session_id`` or ``key_id`` is the credential the call was made under, so that ending it ends what it started.
    ``scopes``: what the credential is narrowed to, of `SCOPES`; empty: everything that the role may.
    """

    account: str | None = None
    role: Role = Role.ANONYMOUS
    session_id: str | None = None
    key_id: str | None = None
    scopes: tuple[str, ...] = ()

    def require(self, role: Role) -> None:
        """Return when the caller's role is at least ``role``; else `Unauthenticated` for nobody, `Forbidden` for somebody."""
        if self.role >= role:
            return
        if self.role is Role.ANONYMOUS:
            raise Unauthenticated("Sign in first, or send an API key: Authorization: Bearer ….")
        raise Forbidden(f"This needs the role {role.name.lower()}; yours is {self.role.name.lower()}.")

    def require_scope(self, scope: str | None) -> None:
        """Return when the credential is not narrowed, or to ``scope`` among others; else `Forbidden`. None: nothing fits."""
        if self.scopes and scope not in self.scopes:
            needed = f"the scope {scope}" if scope else "a key without scopes"
            raise Forbidden(f"This needs {needed}; this key has: {', '.join(self.scopes)}.")

    def owns(self, owner: str) -> bool:
        """Whether the caller is ``owner`` or an administrator."""
        return self.role is Role.ADMIN or (self.account is not None and self.account == owner)


ANONYMOUS = Caller()
