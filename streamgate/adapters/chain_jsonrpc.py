"""EVM chains over JSON-RPC (EIP-1474), each over one or more endpoints that nobody trusts further than one answer.

An endpoint is asked for its chain id before it is believed, its answers are bounded in size and time, redirects are not
followed, and one that fails is left alone for a while when there is another. URLs may hold secrets: they are never logged.

Several reads go in one ``eth_call`` of Multicall3 where the block has it, else in one JSON-RPC batch, else one by one.
A read that failed inside Multicall3 is asked again alone, since starving of gas looks like a revert there.
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

from streamgate.adapters import chain_wire as wire
from streamgate.adapters import multicall3
from streamgate.adapters.chain_wire import BatchRefused, Failed, RpcError, TooLarge
from streamgate.domain.clock import Clock
from streamgate.domain.errors import ChainUnavailable
from streamgate.ports.chain import Answer, Balance, Chains, Head, Read, Returned, Reverted, Unread

TIMEOUT_S = 4.0
"""Seconds that one request may take. All requests of one reading together may take twice as long."""
PENALTY_S = 5.0
VERIFIED_S = 600.0
"""Seconds that an endpoint's chain id is believed, that Multicall3 is taken to be there, and that it refuses batches."""
ABSENT_S = 60.0
"""Seconds that Multicall3 is taken to be missing."""
MAX_BATCH = 64
"""Reads in one call of Multicall3 or one batch."""
AGGREGATE_GAS = 16_000_000
"""Gas of one call of Multicall3: below what a transaction may have at most (2**24, EIP-7825), so that every node takes it."""
MAX_LAG = 16
LAG_MEMORY_S = 60.0
PARALLEL = 8


@dataclass(slots=True)
class _Endpoint:
    """What is remembered of an endpoint, until moments of the monotonic clock. ``multicall``: whether it shows Multicall3."""

    url: str
    shunned_until: float = 0.0
    verified_until: float = 0.0
    multicall: bool = False
    multicall_until: float = 0.0
    no_batches_until: float = 0.0


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
            except Failed as error:
                endpoint.shunned_until = self._clock.monotonic() + PENALTY_S
                structlog.get_logger().warning("chain endpoint failed", chain=chain, endpoint=index, reason=str(error))
                continue
            endpoint.shunned_until = 0.0
            return head
        raise ChainUnavailable(f"The chain {chain} cannot be read now.", retry_after=PENALTY_S)

    async def read(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        if not reads:
            return []
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                found = await self._read(head, reads)
        except TimeoutError:
            raise self._gone(head, Failed("reading took too long")) from None
        except Failed as error:
            raise self._gone(head, error) from None
        unread = [answer for answer in found if isinstance(answer, Unread)]
        if len(unread) == len(found):
            raise self._gone(head, Failed(unread[0].why))
        return found

    async def has_code(self, head: Head, address: bytes) -> bool:
        try:
            return await self._has_code(head, address)
        except Failed as error:
            raise self._gone(head, error) from None

    async def _head(self, name: str, chain: _Chain, index: int, tag: str) -> Head:
        endpoint = chain.endpoints[index]
        try:
            if endpoint.verified_until <= self._clock.monotonic():
                number = wire.quantity(await self._ask(name, index, "eth_chainId", []))
                if f"eip155:{number}" != name:
                    raise Failed(f"it serves chain {number}")
                endpoint.verified_until = self._clock.monotonic() + VERIFIED_S
            read_at_ms = self._clock.now_ms()
            block = await self._ask(name, index, "eth_getBlockByNumber", [tag, False])
        except RpcError as error:
            raise Failed(f"it refused with code {error.code}") from None
        if not isinstance(block, dict):
            raise Failed(f"it has no block {tag}")
        head = Head(
            chain=name,
            number=wire.quantity(block.get("number")),
            hash=wire.block_hash(block.get("hash")),
            timestamp=wire.quantity(block.get("timestamp")),
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
            raise Failed(f"it lags {chain.highest - head.number} blocks behind")

    async def _read(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        together = self._aggregate if len(reads) > 1 and await self._has_multicall(head) else self._each
        parts = [reads[start : start + MAX_BATCH] for start in range(0, len(reads), MAX_BATCH)]
        found = await asyncio.gather(*(together(head, part) for part in parts))
        return list(itertools.chain.from_iterable(found))

    async def _aggregate(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        """All in one call of Multicall3; those that failed, and those that may have starved, once more alone."""
        data = multicall3.encode(reads)
        params = [wire.call(multicall3.ADDRESS, data, AGGREGATE_GAS), wire.pinned(head)]
        endpoint = self._endpoint(head)
        try:
            raw = wire.data(await self._ask(head.chain, head.endpoint, "eth_call", params))
            items = multicall3.decode(raw, len(reads)) if raw else None
        except TooLarge:
            return await self._each(head, reads)
        except RpcError as error:
            endpoint.multicall_until = 0.0
            if error.is_limit():
                raise Failed("it limits the rate of requests") from None
            return await self._each(head, reads)  # out of gas, for instance: nodes differ in the code for that
        except ValueError as error:
            endpoint.multicall_until = 0.0
            raise Failed(f"its answer is none of Multicall3: {error}") from None
        if items is None:  # a block from before the contract was there
            endpoint.multicall_until = 0.0
            return await self._each(head, reads)
        found: list[Answer] = [Returned(data) for _, data in items]
        doubtful = _doubtful(items)
        again = await self._each(head, [reads[index] for index in doubtful])
        for index, answer in zip(doubtful, again, strict=True):
            found[index] = answer
        return found

    async def _each(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        """Every read with gas of its own: in one batch where the endpoint takes them, else one by one."""
        endpoint = self._endpoint(head)
        if len(reads) > 1 and endpoint.no_batches_until <= self._clock.monotonic():
            try:
                return await self._batch(head, reads)
            except BatchRefused:
                endpoint.no_batches_until = self._clock.monotonic() + VERIFIED_S
            except TooLarge:
                pass  # one answer among them is: which one shows when each is asked for alone
        return list(await asyncio.gather(*(self._alone(head, read) for read in reads)))

    async def _batch(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        numbers = [next(self._ids) for _ in reads]
        requests = [
            wire.request(number, *wire.question(head, read)) for number, read in zip(numbers, reads, strict=True)
        ]
        found = wire.results(*await self._post(head.chain, head.endpoint, requests), numbers)
        return [_answer(read, result) for read, result in zip(reads, found, strict=True)]

    async def _alone(self, head: Head, read: Read) -> Answer:
        try:
            return _answer(read, await self._ask(head.chain, head.endpoint, *wire.question(head, read)))
        except RpcError as error:
            return _answer(read, error)
        except TooLarge:
            return Unread("The answer of this contract is too large.")

    async def _has_multicall(self, head: Head) -> bool:
        """Whether Multicall3 can be used; only what a recent block shows is remembered of its absence."""
        endpoint = self._endpoint(head)
        if endpoint.multicall_until > self._clock.monotonic():
            return endpoint.multicall
        found = await self._has_code(head, multicall3.ADDRESS)
        if found or head.number + MAX_LAG >= self._chains[head.chain].highest:
            endpoint.multicall = found
            endpoint.multicall_until = self._clock.monotonic() + (VERIFIED_S if found else ABSENT_S)
        return found

    async def _has_code(self, head: Head, address: bytes) -> bool:
        try:
            params = ["0x" + address.hex(), wire.pinned(head)]
            return len(wire.data(await self._ask(head.chain, head.endpoint, "eth_getCode", params))) > 0
        except RpcError as error:
            raise Failed(f"it refused with code {error.code}") from None

    async def _ask(self, name: str, index: int, method: str, params: list[Any]) -> Any:
        number = next(self._ids)
        return wire.result(*await self._post(name, index, wire.request(number, method, params)), number)

    async def _post(self, name: str, index: int, body: Any) -> tuple[int, bytes]:
        """Status and body of the answer to a request or a batch. `Failed` for a transport fault and beyond the bounds.

        A line that ends before its answer is asked for is no fault of the endpoint: it may close one that was idle in the
        moment that it is used again (RFC 9112 section 9.5). All that is asked here only reads, so it is asked once more.
        """
        chain = self._chains[name]
        content = msgspec.json.encode(body)
        try:
            async with chain.slots, asyncio.timeout(TIMEOUT_S):
                try:
                    return await self._exchange(chain.endpoints[index].url, content)
                except aiohttp.ClientConnectorError:
                    raise
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    return await self._exchange(chain.endpoints[index].url, content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Failed(f"no answer ({type(error).__name__})") from None

    async def _exchange(self, url: str, content: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"}
        async with self._http.post(url, data=content, headers=headers, allow_redirects=False) as answer:
            return answer.status, await wire.bounded(answer)

    def _endpoint(self, head: Head) -> _Endpoint:
        return self._chains[head.chain].endpoints[head.endpoint]

    def _gone(self, head: Head, error: Exception) -> ChainUnavailable:
        structlog.get_logger().warning("chain read failed", chain=head.chain, endpoint=head.endpoint, reason=str(error))
        self._endpoint(head).shunned_until = self._clock.monotonic() + PENALTY_S
        return ChainUnavailable(f"The chain {head.chain} cannot be read now.", retry_after=2)


def _answer(read: Read, found: Any) -> Answer:
    """What the result of a read alone, or its error, says of it. `Failed` for a result that is malformed."""
    if not isinstance(found, RpcError):
        return Returned(
            wire.quantity(found, 256).to_bytes(32, "big") if isinstance(read, Balance) else wire.data(found)
        )
    if isinstance(read, Balance) or not found.is_revert():
        return Unread(f"The node refused this read with code {found.code}.")
    return Reverted(wire.data(found.data) if found.data else b"")


def _doubtful(items: Sequence[tuple[bool, bytes]]) -> list[int]:
    """The places of those that failed and, from the first that failed without a reason on, of all: that one may have burnt
    the gas, and a contract that starves may answer wrongly instead of failing.
    """
    burnt = next((index for index, (success, data) in enumerate(items) if not success and not data), len(items))
    return [index for index, (success, _) in enumerate(items) if not success or index > burnt]
