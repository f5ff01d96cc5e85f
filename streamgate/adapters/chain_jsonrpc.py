"""EVM chains over JSON-RPC (EIP-1474), each over one or more endpoints that nobody trusts further than one answer.

An endpoint is asked for its chain id before it is believed, its answers are bounded in size and time, redirects are not
followed, and one that fails is left alone for a while when there is another. URLs may hold secrets: they are never logged.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec
import structlog

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ChainUnavailable
from streamgate.ports.chain import Call, Chains, Head, Returned, Reverted

TIMEOUT_S = 4.0
MAX_ANSWER = 256 << 10
PENALTY_S = 5.0
VERIFIED_S = 600.0
GAS = 5_000_000
MAX_LAG = 16
LAG_MEMORY_S = 60.0
PARALLEL = 8

_REVERTS = frozenset({3, -32000, -32015})
_NOBODY = "0x0000000000000000000000000000000000000000"


class _Failed(Exception):
    """An endpoint did not give a usable answer; the message names no URL."""


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: str) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


@dataclass(slots=True)
class _Endpoint:
    url: str
    shunned_until: float = 0.0
    verified_until: float = 0.0


@dataclass(slots=True)
class _Chain:
    endpoints: list[_Endpoint]
    highest: int = 0
    highest_at: float = 0.0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))


class JsonRpcChains(Chains):
    """``endpoints``: CAIP-2 chain id → URLs in order of preference. An async context manager: it owns its connections."""

    def __init__(self, endpoints: Mapping[str, Sequence[str]], clock: Clock) -> None:
        self._chains = {chain: _Chain([_Endpoint(url) for url in urls]) for chain, urls in endpoints.items()}
        self._clock = clock
        self._ids = itertools.count(1)
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=TIMEOUT_S / 2)
        self._http = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def known(self) -> frozenset[str]:
        return frozenset(self._chains)

    async def head(self, chain: str, tag: str = "latest") -> Head:
        found = self._chains.get(chain)
        if found is None:
            raise ChainUnavailable(f"The chain {chain} is not configured on this server.")
        now = self._clock.monotonic()
        order = sorted(range(len(found.endpoints)), key=lambda i: (found.endpoints[i].shunned_until > now, i))
        for index in order:
            endpoint = found.endpoints[index]
            try:
                head = await self._head(chain, found, index, tag)
            except _Failed as error:
                endpoint.shunned_until = self._clock.monotonic() + PENALTY_S
                structlog.get_logger().warning("chain endpoint failed", chain=chain, endpoint=index, reason=str(error))
                continue
            endpoint.shunned_until = 0.0
            return head
        raise ChainUnavailable(f"The chain {chain} cannot be read now.", retry_after=PENALTY_S)

    async def call(self, head: Head, calls: Sequence[Call]) -> list[Returned | Reverted]:
        try:
            return list(await asyncio.gather(*(self._call(head, call) for call in calls)))
        except _Failed as error:
            raise self._gone(head, error) from None

    async def has_code(self, head: Head, address: bytes) -> bool:
        try:
            code = await self._ask(head.chain, head.endpoint, "eth_getCode", ["0x" + address.hex(), _pinned(head)])
        except (_Failed, _RpcError) as error:
            raise self._gone(head, error) from None
        return len(_bytes(code)) > 0

    async def _head(self, name: str, chain: _Chain, index: int, tag: str) -> Head:
        endpoint = chain.endpoints[index]
        try:
            if endpoint.verified_until <= self._clock.monotonic():
                number = _quantity(await self._ask(name, index, "eth_chainId", []))
                if f"eip155:{number}" != name:
                    raise _Failed(f"it serves chain {number}")
                endpoint.verified_until = self._clock.monotonic() + VERIFIED_S
            read_at_ms = self._clock.now_ms()
            block = await self._ask(name, index, "eth_getBlockByNumber", [tag, False])
        except _RpcError as error:
            raise _Failed(f"it refused with code {error.code}") from None
        if not isinstance(block, dict):
            raise _Failed(f"it has no block {tag}")
        head = Head(
            chain=name,
            number=_quantity(block.get("number")),
            hash=_hash(block.get("hash")),
            timestamp=_quantity(block.get("timestamp")),
            read_at_ms=read_at_ms,
            endpoint=index,
        )
        if tag == "latest":
            self._check_lag(chain, head)
        return head

    def _check_lag(self, chain: _Chain, head: Head) -> None:
        """Refuse an endpoint that is far behind what another one has shown within the last minute."""
        now = self._clock.monotonic()
        if head.number >= chain.highest or now - chain.highest_at > LAG_MEMORY_S:
            chain.highest, chain.highest_at = head.number, now
        elif chain.highest - head.number > MAX_LAG and len(chain.endpoints) > 1:
            raise _Failed(f"it lags {chain.highest - head.number} blocks behind")

    async def _call(self, head: Head, call: Call) -> Returned | Reverted:
        request = {"from": _NOBODY, "to": "0x" + call.to.hex(), "data": "0x" + call.data.hex(), "gas": hex(GAS)}
        try:
            return Returned(_bytes(await self._ask(head.chain, head.endpoint, "eth_call", [request, _pinned(head)])))
        except _RpcError as error:
            if error.code in _REVERTS and (error.code == 3 or "revert" in error.message.lower()):
                return Reverted(_bytes(error.data) if error.data else b"")
            raise _Failed(f"it refused with code {error.code}") from None

    async def _ask(self, name: str, index: int, method: str, params: list[Any]) -> Any:
        chain = self._chains[name]
        number = next(self._ids)
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        headers = {"content-type": "application/json"}
        try:
            async with (
                chain.slots,
                self._http.post(
                    chain.endpoints[index].url, data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                content = await _bounded(answer)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _Failed(f"no answer ({type(error).__name__})") from None
        return _result(status, content, number)

    def _gone(self, head: Head, error: Exception) -> ChainUnavailable:
        structlog.get_logger().warning("chain read failed", chain=head.chain, endpoint=head.endpoint, reason=str(error))
        self._chains[head.chain].endpoints[head.endpoint].shunned_until = self._clock.monotonic() + PENALTY_S
        return ChainUnavailable(f"The chain {head.chain} cannot be read now.", retry_after=2)


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(64 << 10):
        content += piece
        if len(content) > MAX_ANSWER:
            raise _Failed("its answer is too large")
    return bytes(content)


def _result(status: int, content: bytes, number: int) -> Any:
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        raise _Failed(f"HTTP {status} without JSON") from None
    if not isinstance(answer, dict) or answer.get("id") != number:
        raise _Failed(f"HTTP {status} with something that is no answer")
    error = answer.get("error")
    if isinstance(error, dict):
        data = error.get("data")
        raise _RpcError(
            _integer(error.get("code")), str(error.get("message", "")), data if isinstance(data, str) else ""
        )
    if error is not None or "result" not in answer or status != 200:
        raise _Failed(f"HTTP {status} with something that is no answer")
    return answer["result"]


def _pinned(head: Head) -> dict[str, Any]:
    """The block by its hash, and only while it is part of the chain (EIP-1898)."""
    return {"blockHash": head.hash, "requireCanonical": True}


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _bytes(value: object) -> bytes:
    try:
        if not isinstance(value, str) or not value.startswith("0x"):
            raise ValueError
        return bytes.fromhex(value[2:])
    except ValueError:
        raise _Failed("its answer is not hexadecimal data") from None


def _quantity(value: object) -> int:
    try:
        if not isinstance(value, str) or not value.startswith("0x") or len(value) > 34:
            raise ValueError
        return int(value, 16)
    except ValueError:
        raise _Failed("its answer is not a quantity") from None


def _hash(value: object) -> str:
    if len(_bytes(value)) != 32:
        raise _Failed("its block has no hash")
    return str(value)
