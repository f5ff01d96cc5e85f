"""The capability token that stands in media URLs.

46 bytes, written as 62 characters of base64url without padding (RFC 4648 section 5)::

    version 1 | kid 1 | session id 12 | asset id 12 | expiry 4 | HMAC-SHA256 of all before it, first 16

``expiry`` is in seconds since the epoch, big-endian: the hard end of the session and nothing else; how fresh the right to
watch is, is not in the token. Checking needs no database and takes a few microseconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from streamgate.domain.errors import ConfigurationError
from streamgate.domain.identity import Prefix, id_bytes, id_text
from streamgate.runtime.secrets import keyed_secrets, read_secret, secret_file

VERSION = 1
LENGTH = 62
_BODY = struct.Struct("!BB12s12sI")
_MAC = 16
_CONTEXT = b"streamgate playback token\x00"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says. ``expires_s``: seconds since the epoch."""

    session_id: str
    asset_id: str
    expires_s: int


class PlaybackTokens:
    """Mints with the first key, checks with all of them. ``keys``: (kid, 32 secret bytes)."""

    def __init__(self, keys: tuple[tuple[int, bytes], ...]) -> None:
        self._signing = keys[0]
        self._keys = dict(keys)

    def mint(self, session_id: str, asset_id: str, expires_s: int) -> str:
        """The token of a session for one film."""
        kid, secret = self._signing
        body = _BODY.pack(VERSION, kid, id_bytes(session_id), id_bytes(asset_id), expires_s)
        return base64.urlsafe_b64encode(body + _mac(secret, body)).rstrip(b"=").decode()

    def open(self, token: str) -> Claims | None:
        """The claims of a token that was minted with one of the keys, expired or not; None for anything else."""
        if len(token) != LENGTH:
            return None
        try:
            raw = base64.b64decode(token + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        version, kid, session, asset, expires_s = _BODY.unpack(body)
        secret = self._keys.get(kid)
        if secret is None or version != VERSION or not hmac.compare_digest(mac, _mac(secret, body)):
            return None
        if base64.urlsafe_b64encode(raw).rstrip(b"=") != token.encode():
            return None  # the last character has four bits that no byte needs: only one spelling is ours
        return Claims(id_text(Prefix.PLAYBACK, session), id_text(Prefix.ASSET, asset), expires_s)


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, _CONTEXT + body, hashlib.sha256)[:_MAC]


def load_keys(configured: Path | None, data_dir: Path) -> tuple[tuple[int, bytes], ...]:
    """The keys of the configured file, or those of the data directory, made at first start."""
    if configured is None:
        content = secret_file(data_dir / "keys" / "playback.keys", _fresh)
        return parse_keys(content, data_dir / "keys" / "playback.keys")
    try:
        return parse_keys(read_secret(configured), configured)
    except FileNotFoundError:
        raise ConfigurationError(f"The playback keys file {configured} does not exist.") from None


def _fresh() -> bytes:
    return f"1 {os.urandom(32).hex()}\n".encode()


def parse_keys(content: bytes, path: Path) -> tuple[tuple[int, bytes], ...]:
    """Keys by kid, a number up to 255; `ConfigurationError` for a file of anything else."""
    keys = {}
    for kid, secret in keyed_secrets(content, path).items():
        if not kid.isdecimal() or int(kid) > 255 or int(kid) in keys:
            raise ConfigurationError(f"{path}: the kid {kid!r} is no number from 0 to 255, or there twice.")
        keys[int(kid)] = secret
    return tuple(keys.items())
