"""What the gate reads of a chain: heads for a moment, and answers by the hash of their block, each asked for once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeVar

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ChainUnavailable
from streamgate.kernel import Check
from streamgate.ports.chain import Answer, Chains, Head, Read, Returned, Unread

HEAD_AGE_S = 1.0
MAX_READS = 10_000
MAX_KEPT = 1024
"""Bytes of an answer that is kept: nothing that the gate asks for is as long."""
MAX_CONTRACTS = 10_000

BALANCE_OF = bytes.fromhex("70a08231")
"""``balanceOf(address)`` (ERC-20 and ERC-721)."""

BALANCE_OF_ID = bytes.fromhex("00fdd58e")
"""``balanceOf(address,uint256)`` (ERC-1155)."""

OWNER_OF = bytes.fromhex("6352211e")
"""``ownerOf(uint256)`` (ERC-721)."""

T = TypeVar("T")


class ChainReads:
    """Reads with single-flight. An answer belongs to one block for ever, so it is kept by the block's hash."""

    def __init__(self, chains: Chains, clock: Clock) -> None:
        self._chains = chains
        self._clock = clock
        self._heads: dict[tuple[str, str], tuple[float, Head]] = {}
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[Any]] = {}
        self._contracts: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    async def health(self) -> dict[str, Check]:
        """By chain: whether it can be read now."""

        async def look(chain: str) -> Check:
            try:
                return Check("ok", f"at block {(await self.head(chain, 'latest')).number}")
            except ChainUnavailable as error:
                return Check("degraded", error.detail)

        chains = sorted(self._chains.known())
        return dict(zip(chains, await asyncio.gather(*(look(chain) for chain in chains)), strict=True))

    async def head(self, chain: str, tag: str) -> Head:
        """The block of ``tag``, at most a second old."""
        kept = self._heads.get((chain, tag))
        if kept is not None and self._clock.monotonic() - kept[0] < HEAD_AGE_S:
            return kept[1]

        async def load() -> Head:
            asked_at = self._clock.monotonic()
            head = await self._chains.head(chain, tag)
            self._heads[chain, tag] = (asked_at, head)
            return head

        return await self._once(("head", chain, tag), load)

    async def read(self, head: Head, reads: Sequence[Read]) -> dict[Read, Answer]:
        """Every read in exactly that block; `Unread` where nobody knows, so this does not fail.

        What is kept is not asked again, what somebody else is asking now is waited for, and the rest goes out together.
        """
        found: dict[Read, Answer] = {}
        flights: dict[Read, asyncio.Task[dict[Read, Answer]]] = {}
        missing: list[Read] = []
        for read in dict.fromkeys(reads):
            key = _key(head, read)
            if key in self._answers:
                self._answers.move_to_end(key)
                found[read] = self._answers[key]
            elif key in self._flights:
                flights[read] = self._flights[key]
            else:
                missing.append(read)
        if missing:
            flight = self._fly([_key(head, read) for read in missing], lambda: self._load(head, missing))
            flights |= dict.fromkeys(missing, flight)
        for read, flight in flights.items():
            try:
                found[read] = (await asyncio.shield(flight))[read]
            except ChainUnavailable as error:
                found[read] = Unread(error.detail)
        return found

    async def has_code(self, head: Head, address: bytes) -> bool:
        """Whether there is a contract at the address in that block. `ChainUnavailable` when nobody knows."""
        return await self._once(("code", head.chain, head.hash, address), lambda: self._chains.has_code(head, address))

    async def is_contract(self, head: Head, address: bytes) -> bool:
        """Whether there has been code at the address in this block or one that was looked at before.

        What has no code may answer none the less: a precompile does, and what it answers is no balance. What had code and
        has none any more answers with nothing. So a yes is remembered, and a no is not.
        """
        mark = (head.chain, address)
        if mark in self._contracts:
            self._contracts.move_to_end(mark)
            return True
        if not await self.has_code(head, address):
            return False
        self._contracts[mark] = None
        if len(self._contracts) > MAX_CONTRACTS:
            self._contracts.popitem(last=False)
        return True

    async def _load(self, head: Head, reads: Sequence[Read]) -> dict[Read, Answer]:
        try:
            answers = dict(zip(reads, await self._chains.read(head, reads), strict=True))
        except ChainUnavailable:
            # The block may be gone (a reorganisation): the next question begins with a new one.
            self._heads = {mark: kept for mark, kept in self._heads.items() if kept[1].hash != head.hash}
            raise
        for read, answer in answers.items():
            if not isinstance(answer, Unread) and len(answer.data) <= MAX_KEPT:
                self._answers[_key(head, read)] = answer
        while len(self._answers) > MAX_READS:
            self._answers.popitem(last=False)
        return answers

    async def _once(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        found: T = await asyncio.shield(self._flights.get(key) or self._fly([key], load))
        return found

    def _fly(self, keys: Sequence[Hashable], load: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Start to load what all the keys stand for; whoever asks for one of them meanwhile waits for this."""

        async def run() -> T:
            try:
                return await load()
            finally:
                for key in keys:
                    self._flights.pop(key, None)

        flight = asyncio.get_running_loop().create_task(run())
        flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._flights |= dict.fromkeys(keys, flight)
        return flight


def _key(head: Head, read: Read) -> Hashable:
    return ("read", head.chain, head.hash, read)


def word(value: int | str) -> bytes:
    """A uint256, or an address in hex, as a 32-byte ABI word."""
    number = int(value, 16) if isinstance(value, str) else value
    return number.to_bytes(32, "big")


def uint(answer: Answer) -> int | None:
    """The uint256 that a call returned; None for anything else, a return that is too short included."""
    if not isinstance(answer, Returned) or len(answer.data) < 32:
        return None
    return int.from_bytes(answer.data[:32], "big")


def address(answer: Answer) -> str | None:
    """The address that a call returned, in lower case; None for anything that is none."""
    number = uint(answer)
    return None if number is None or number >> 160 else f"0x{number:040x}"
