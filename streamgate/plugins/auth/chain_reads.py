"""What the gate reads of a chain: heads for a moment, and answers by the hash of their block, each asked for once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ChainUnavailable
from streamgate.kernel import Check
from streamgate.ports.chain import Call, Chains, Head, Returned, Reverted

HEAD_AGE_S = 1.0
MAX_READS = 10_000

BALANCE_OF = bytes.fromhex("70a08231")
"""``balanceOf(address)`` (ERC-721)."""

OWNER_OF = bytes.fromhex("6352211e")
"""``ownerOf(uint256)`` (ERC-721)."""

T = TypeVar("T")


class ChainReads:
    """Reads with single-flight. An answer belongs to one block for ever, so it is kept by the block's hash."""

    def __init__(self, chains: Chains, clock: Clock) -> None:
        self._chains = chains
        self._clock = clock
        self._heads: dict[tuple[str, str], tuple[float, Head]] = {}
        self._answers: OrderedDict[Hashable, Returned | Reverted] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Task[Any]] = {}

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

    async def call(self, head: Head, call: Call) -> Returned | Reverted:
        """One read in exactly that block."""
        key = (head.chain, head.hash, call.to, call.data)
        kept = self._answers.get(key)
        if kept is not None:
            self._answers.move_to_end(key)
            return kept

        async def load() -> Returned | Reverted:
            (answer,) = await self._chains.call(head, [call])
            self._answers[key] = answer
            if len(self._answers) > MAX_READS:
                self._answers.popitem(last=False)
            return answer

        try:
            return await self._once(key, load)
        except ChainUnavailable:
            # The block may be gone (a reorganisation): the next question begins with a new one.
            self._heads = {mark: kept for mark, kept in self._heads.items() if kept[1].hash != head.hash}
            raise

    async def has_code(self, head: Head, address: bytes) -> bool:
        """Whether there is a contract at the address in that block."""
        return await self._once(("code", head.chain, head.hash, address), lambda: self._chains.has_code(head, address))

    async def _once(self, key: Hashable, load: Callable[[], Awaitable[T]]) -> T:
        flight = self._flights.get(key)
        if flight is None:

            async def run() -> T:
                try:
                    return await load()
                finally:
                    self._flights.pop(key, None)

            flight = asyncio.get_running_loop().create_task(run())
            flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._flights[key] = flight
        found: T = await asyncio.shield(flight)
        return found


def word(value: int | str) -> bytes:
    """A uint256, or an address in hex, as a 32-byte ABI word."""
    number = int(value, 16) if isinstance(value, str) else value
    return number.to_bytes(32, "big")


def uint(answer: Returned | Reverted) -> int | None:
    """The uint256 that a call returned; None for a revert or a return that is too short to be one."""
    if isinstance(answer, Reverted) or len(answer.data) < 32:
        return None
    return int.from_bytes(answer.data[:32], "big")


def address(answer: Returned | Reverted) -> str | None:
    """The address that a call returned, in lower case; None for anything that is none."""
    number = uint(answer)
    return None if number is None or number >> 160 else f"0x{number:040x}"
