"""Signatures of wallets over messages: EIP-191 version 0x45, by the key of the address itself (EOA)."""

from __future__ import annotations

import re

from eth_keys import KeyAPI
from eth_keys.backends import CoinCurveECCBackend
from eth_keys.exceptions import BadSignature
from eth_keys.exceptions import ValidationError as KeyValidationError
from eth_utils import keccak

from streamgate.domain.errors import ConfigurationError

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{130})\Z")


class Signatures:
    """Checks signatures with libsecp256k1; `ConfigurationError` where that is missing (pure Python is 80 times slower)."""

    def __init__(self) -> None:
        try:
            self._keys = KeyAPI(CoinCurveECCBackend())
        except ImportError:
            raise ConfigurationError(
                "Signatures cannot be checked: install streamgate[auth] (coincurve is missing)."
            ) from None

    def by_address(self, address: str, message: str, signature: str) -> bool:
        """Whether ``signature`` over ``message`` is by the key of ``address``. Never raises for what a stranger may send.

        ``signature``: 0x and 65 bytes in hex (r, s, v with v in 0, 1, 27, 28), or the 64 bytes of EIP-2098; s in the lower
        half of the order (EIP-2), so that there is one signature and not two.
        """
        raw = _compact(signature)
        if raw is None:
            return False
        digest = digest_of(message)
        try:
            key = self._keys.ecdsa_recover(digest, self._keys.Signature(vrs=raw))
        except (BadSignature, KeyValidationError, ValueError):
            return False
        return bool(key.to_address() == address.lower())


def digest_of(message: str) -> bytes:
    """What a wallet signs of a text: EIP-191 version 0x45, over the length of its UTF-8 bytes and the bytes."""
    body = message.encode()
    return bytes(keccak(b"\x19Ethereum Signed Message:\n" + str(len(body)).encode() + body))


def _compact(signature: str) -> tuple[int, int, int] | None:
    """(v, r, s) with v in {0, 1}; None for anything but a well-formed low-s signature."""
    if not _HEX.match(signature):
        return None
    raw = bytes.fromhex(signature[2:])
    r = int.from_bytes(raw[:32], "big")
    if len(raw) == 64:
        v = raw[32] >> 7
        s = int.from_bytes(raw[32:], "big") & ((1 << 255) - 1)
    else:
        s, v = int.from_bytes(raw[32:64], "big"), raw[64]
        if v not in {0, 1, 27, 28}:
            return None
        v = v - 27 if v >= 27 else v
    if not 0 < r < _ORDER or not 0 < s <= _ORDER // 2:
        return None
    return v, r, s
