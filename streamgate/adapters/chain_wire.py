"""JSON-RPC 2.0 as EVM nodes speak it (EIP-1474): what of an answer is believed, read from its bytes.

An answer is believed only when it is the answer to what was asked: its id, its shape, and in a batch exactly one for
each request. Everything else is `Failed`, and says nothing about the chain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from streamgate.ports.chain import Balance, Head, Read

MAX_ANSWER = 256 << 10
"""Bytes of an answer, of a batch as of a single request; more is not read."""

GAS = 5_000_000
"""Gas of a call that runs alone."""

_NOBODY = "0x0000000000000000000000000000000000000000"
_QUANTITY = re.compile(r"0x[0-9a-fA-F]+\Z")
_REVERTS = frozenset({3, -32000, -32015})
_LIMIT_EXCEEDED = -32005
_NO_ARRAYS = frozenset({400, 405, 413, 415, 422, 501})


class Failed(Exception):
    """An endpoint did not give a usable answer; the message names no URL."""


class TooLarge(Failed):
    """The answer is larger than `MAX_ANSWER`."""


class BatchRefused(Exception):
    """The endpoint takes no arrays of requests, or none of this length."""


class RpcError(Exception):
    """The endpoint answered with an error. ``data``: as it came, possibly empty."""

    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data

    def is_limit(self) -> bool:
        """Whether the endpoint is asked too often (EIP-1474)."""
        return self.code == _LIMIT_EXCEEDED

    def is_revert(self) -> bool:
        """Whether the contract reverted: code 3 (geth), or a code of older nodes with a message that says so."""
        return self.code == 3 or (self.code in _REVERTS and "revert" in self.message.lower())


def request(number: int, method: str, params: list[Any]) -> dict[str, Any]:
    """One request, as JSON."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def pinned(head: Head) -> dict[str, Any]:
    """The block by its hash, and only while it is part of the chain (EIP-1898)."""
    return {"blockHash": head.hash, "requireCanonical": True}


def call(to: bytes, data: bytes, gas: int = GAS) -> dict[str, str]:
    """The transaction object of ``eth_call``."""
    return {"from": _NOBODY, "to": "0x" + to.hex(), "data": "0x" + data.hex(), "gas": hex(gas)}


def question(head: Head, read: Read) -> tuple[str, list[Any]]:
    """Method and parameters that ask for one read alone."""
    if isinstance(read, Balance):
        return "eth_getBalance", ["0x" + read.address.hex(), pinned(head)]
    return "eth_call", [call(read.to, read.data), pinned(head)]


async def bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. `TooLarge` as soon as it is."""
    content = bytearray()
    async for piece in answer.content.iter_chunked(64 << 10):
        content += piece
        if len(content) > MAX_ANSWER:
            raise TooLarge("its answer is too large")
    return bytes(content)


def result(status: int, content: bytes, number: int) -> Any:
    """The result of request ``number``. `RpcError` for an error, `Failed` for what is no answer to it."""
    answer = _json(status, content)
    if not isinstance(answer, dict) or type(answer.get("id")) is not int or answer["id"] != number:
        raise Failed(f"HTTP {status} with something that is no answer")
    found = _outcome(status, answer)
    if isinstance(found, RpcError):
        raise found
    return found


def results(status: int, content: bytes, numbers: Sequence[int]) -> list[Any]:
    """For each request of a batch its result or its `RpcError`, in the order of ``numbers``.

    `BatchRefused` for one error instead of an array, `Failed` for an array that does not hold exactly one answer to
    each request (JSON-RPC 2.0 section 6): then none of it is believed.
    """
    if status in _NO_ARRAYS:
        raise BatchRefused
    answers = _json(status, content)
    if isinstance(answers, list) and len(answers) == 1 < len(numbers):
        answers = answers[0]  # nodes that refuse an array with an array
    if isinstance(answers, dict) and isinstance(answers.get("error"), dict):
        if status == 429 or answers["error"].get("code") == _LIMIT_EXCEEDED:
            raise Failed("it limits the rate of requests")
        raise BatchRefused
    if not isinstance(answers, list) or len(answers) != len(numbers):
        raise Failed(f"HTTP {status} with something that is no answer to a batch")
    known = {answer["id"]: answer for answer in answers if isinstance(answer, dict) and type(answer.get("id")) is int}
    if known.keys() != set(numbers):
        raise Failed("its batch answers something else than was asked")
    return [_outcome(status, known[number]) for number in numbers]


def data(value: object) -> bytes:
    """Bytes of 0x and hexadecimal digits, possibly none."""
    try:
        if not isinstance(value, str) or not value.startswith("0x"):
            raise ValueError
        return bytes.fromhex(value[2:])
    except ValueError:
        raise Failed("its answer is not hexadecimal data") from None


def quantity(value: object, bits: int = 128) -> int:
    """A number of 0x and hexadecimal digits, below 2 to the power of ``bits``."""
    if not isinstance(value, str) or len(value) > 2 + bits // 4 or not _QUANTITY.match(value):
        raise Failed("its answer is not a quantity")
    return int(value, 16)


def block_hash(value: object) -> str:
    """The hash of a block, as it came."""
    if len(data(value)) != 32:
        raise Failed("its block has no hash")
    return str(value)


def _json(status: int, content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        raise Failed(f"HTTP {status} without JSON") from None


def _outcome(status: int, answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if isinstance(error, dict):
        code, extra = error.get("code"), error.get("data")
        return RpcError(
            code if isinstance(code, int) else 0,
            str(error.get("message", "")),
            extra if isinstance(extra, str) else "",
        )
    if error is not None or "result" not in answer or status != 200:
        raise Failed(f"HTTP {status} with something that is no answer")
    return answer["result"]
