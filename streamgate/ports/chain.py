"""Chains: reading contracts of EVM chains by JSON-RPC. The one port without a second adapter: there is no fake of a chain.

Three outcomes, kept apart because the gate is three-valued: a value, a revert (the contract said no, in a way that its
standard may define), and nobody knows (`Unread` for one of many reads, `ChainUnavailable` for all of them).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """The block that reads are pinned to. ``read_at_ms``: wall time (ms since the epoch) when it was asked for.

    ``endpoint`` is an opaque mark: every read pinned to this head goes to the same endpoint.
    """

    chain: str
    number: int
    hash: str
    timestamp: int
    read_at_ms: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class Call:
    """A read: ``to`` a contract (20 bytes), ``data`` its call data."""

    to: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Balance:
    """A read: what ``address`` (20 bytes) has of the chain's own coin. Answered as a uint256 word, in wei."""

    address: bytes


Read = Call | Balance


@dataclass(frozen=True, slots=True)
class Returned:
    """The call succeeded with these bytes, possibly none."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reverted:
    """The contract reverted, with these bytes of revert data, possibly none."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """Nobody knows: this read had no usable answer. ``why``: a sentence for people; it names no URL."""

    why: str


Answer = Returned | Reverted | Unread


class Chains(ABC):
    """The configured chains, by CAIP-2 id (``eip155:1``)."""

    @abstractmethod
    def known(self) -> frozenset[str]:
        """Ids of the configured chains."""

    @abstractmethod
    async def head(self, chain: str, tag: str = "latest") -> Head:
        """The block of ``tag`` (latest, safe, finalized), from an endpoint whose chain id was verified.

        `ChainUnavailable` when no endpoint answers properly within its time, names another chain or lags behind.
        """

    @abstractmethod
    async def read(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        """Read all against the state of exactly that block (EIP-1898), answers in the same order.

        A revert is one that the call shows when it runs alone, with gas of its own: never the doing of its neighbours.
        `Unread` where one read has no usable answer (too large, out of gas, refused) and others have.
        `ChainUnavailable` for a transport fault, a malformed answer, a block that is gone, or when no read has a
        usable answer; then nothing is known of any of them.
        """

    @abstractmethod
    async def has_code(self, head: Head, address: bytes) -> bool:
        """Whether there is a contract at the address in that block. `ChainUnavailable` when nobody knows."""
