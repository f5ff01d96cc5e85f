"""Multicall3 (https://github.com/mds1/multicall3): many reads in one ``eth_call``, and the ABI encoding of both directions.

The contract lives at the same address on nearly every EVM chain. ``aggregate3`` runs calls one after another with all the
gas that is left, so a call that starves shows up as failed without data, and a failure here is no proof of a revert.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamgate.ports.chain import Balance, Read

ADDRESS = bytes.fromhex("ca11bde05977b3631167028862be2a173976ca11")

AGGREGATE3 = bytes.fromhex("82ad56cb")
"""``aggregate3((address target, bool allowFailure, bytes callData)[])``, returns ``(bool success, bytes returnData)[]``."""

GET_ETH_BALANCE = bytes.fromhex("4d2301cc")
"""``getEthBalance(address)``, returns a uint256 in wei."""

_WORD = 32


def encode(reads: Sequence[Read]) -> bytes:
    """Call data of ``aggregate3`` for the reads, each allowed to fail."""
    items = [_item(*_target(read)) for read in reads]
    offsets, at = [], len(items) * _WORD
    for item in items:
        offsets.append(_word(at))
        at += len(item)
    return b"".join((AGGREGATE3, _word(_WORD), _word(len(items)), *offsets, *items))


def decode(data: bytes, count: int) -> list[tuple[bool, bytes]]:
    """Success and return data of ``count`` calls.

    `ValueError` for anything but the canonical encoding of exactly that many results, which is what the contract
    writes: every offset where the item before ends, booleans 0 or 1, nothing missing and nothing after.
    """
    if _at(data, 0) != _WORD or _at(data, _WORD) != count:
        raise ValueError("it is no list of that many results")
    start, at, found = 2 * _WORD, (2 + count) * _WORD, []
    for index in range(count):
        if start + _at(data, start + index * _WORD) != at:
            raise ValueError("an offset leads elsewhere")
        success, offset, size = (_at(data, at + place) for place in (0, _WORD, 2 * _WORD))
        begin = at + 3 * _WORD
        if success > 1 or offset != 2 * _WORD or size > len(data) - begin:
            raise ValueError("a result is malformed")
        found.append((success == 1, data[begin : begin + size]))
        at = begin + -(-size // _WORD) * _WORD
    if at != len(data):
        raise ValueError("its length is another")
    return found


def _target(read: Read) -> tuple[bytes, bytes]:
    if isinstance(read, Balance):
        return ADDRESS, GET_ETH_BALANCE + read.address.rjust(_WORD, b"\0")
    return read.to, read.data


def _item(to: bytes, data: bytes) -> bytes:
    padding = bytes(-len(data) % _WORD)
    return b"".join((to.rjust(_WORD, b"\0"), _word(1), _word(3 * _WORD), _word(len(data)), data, padding))


def _word(number: int) -> bytes:
    return number.to_bytes(_WORD, "big")


def _at(data: bytes, place: int) -> int:
    """The word at a place. `ValueError` where the data has ended before its end."""
    if place + _WORD > len(data):
        raise ValueError("it ends too early")
    return int.from_bytes(data[place : place + _WORD], "big")
