"""EIP-191 signatures of key pairs: one spelling of each, and nothing that raises."""

from __future__ import annotations

import pytest
from eth_account.messages import encode_defunct
from eth_utils import keccak
from hypothesis import given
from hypothesis import strategies as st

from streamgate.plugins.auth.signatures import Signatures, digest_of
from tests.support.wallet import Wallet

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MESSAGE = "Films are for those who hold a ticket."
WALLET = Wallet("0x" + "11" * 32)
GOOD = bytes.fromhex(WALLET.sign(MESSAGE)[2:])
CHECK = Signatures()


def accepted(raw: bytes, message: str = MESSAGE, address: str = WALLET.address) -> bool:
    return CHECK.by_address(address, message, "0x" + raw.hex())


def test_the_wallet_that_signed_is_found() -> None:
    assert accepted(GOOD)
    assert accepted(GOOD, address=WALLET.address.lower())
    assert not accepted(GOOD, message=MESSAGE + " ")
    assert not accepted(GOOD, address=Wallet().address)


def test_the_digest_is_the_one_that_wallets_sign() -> None:
    for text in ("", "a", "films" * 50, "Füße, 映画"):
        signable = encode_defunct(text=text)
        assert digest_of(text) == keccak(b"\x19" + signable.version + signable.header + signable.body)


def test_the_recovery_byte_may_begin_at_0_or_27_and_nowhere_else() -> None:
    parity = GOOD[64] - 27
    assert accepted(GOOD[:64] + bytes([parity]))
    for other in (2, 26, 29, 35, 36, 37, 38, 255):
        assert not accepted(GOOD[:64] + bytes([other]))
    assert not accepted(GOOD[:64] + bytes([27 + (1 - parity)]))


def test_the_compact_form_is_taken() -> None:
    s = int.from_bytes(GOOD[32:64], "big") | (GOOD[64] - 27) << 255
    assert accepted(GOOD[:32] + s.to_bytes(32, "big"))


def test_the_malleable_twin_is_refused() -> None:
    s = ORDER - int.from_bytes(GOOD[32:64], "big")
    twin = GOOD[:32] + s.to_bytes(32, "big") + bytes([55 - GOOD[64]])
    assert not accepted(twin)


@pytest.mark.parametrize("r", [0, ORDER, 2**256 - 1])
def test_numbers_out_of_range_are_refused(r: int) -> None:
    assert not accepted(r.to_bytes(32, "big") + GOOD[32:])
    assert not accepted(GOOD[:32] + (0).to_bytes(32, "big") + GOOD[64:])


@pytest.mark.parametrize(
    "text", ["", "0x", "0xzz", "0x" + "00" * 65, "0x" + "00" * 66, "0x" + "11" * 20, "not hex", "0x" + "é" * 130]
)
def test_what_is_no_signature_is_refused_without_a_fuss(text: str) -> None:
    assert not CHECK.by_address(WALLET.address, MESSAGE, text)


@given(st.binary(min_size=60, max_size=70))
def test_no_bytes_raise(raw: bytes) -> None:
    assert not accepted(raw)


@given(st.integers(0, 64), st.integers(1, 255))
def test_any_changed_byte_is_refused(at: int, change: int) -> None:
    forged = bytearray(GOOD)
    forged[at] ^= change
    if at == 64 and forged[64] in {0, 1} and forged[64] == GOOD[64] - 27:
        return
    assert not accepted(bytes(forged))
