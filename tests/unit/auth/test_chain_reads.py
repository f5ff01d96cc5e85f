"""Reads of the gate: what is known is not asked again, what is being asked is waited for, the rest goes out together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streamgate.domain.errors import ChainUnavailable
from streamgate.plugins.auth import chain_reads
from streamgate.plugins.auth.chain_reads import ChainReads, word
from streamgate.ports.chain import Answer, Balance, Call, Chains, Head, Read, Returned, Unread
from tests.support.clock import FakeClock

HEAD = Head(chain="eip155:1", number=1, hash="0x" + "01" * 32, timestamp=1, read_at_ms=1, endpoint=0)
NEXT = Head(chain="eip155:1", number=2, hash="0x" + "02" * 32, timestamp=2, read_at_ms=2, endpoint=0)
A, B, C, D = (Call(b"\x01" * 20, word(index)) for index in range(4))


class Held(Chains):
    """A slow peer: answers each reading when it is let go."""

    def __init__(self) -> None:
        self.asked: list[list[Read]] = []
        self.heads = 0
        self.codes = 0
        self.code = True
        self.go = asyncio.Event()
        self.go.set()
        self.away = False
        self.unread: set[Read] = set()
        self.size = 32

    def known(self) -> frozenset[str]:
        return frozenset({"eip155:1"})

    async def head(self, chain: str, tag: str = "latest") -> Head:
        self.heads += 1
        return HEAD

    async def read(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        self.asked.append(list(reads))
        await self.go.wait()
        if self.away:
            raise ChainUnavailable("The chain is away.")
        return [Unread("It cannot be read.") if read in self.unread else Returned(bytes(self.size)) for read in reads]

    async def has_code(self, head: Head, address: bytes) -> bool:
        self.codes += 1
        return self.code


@pytest.fixture
def chains() -> Held:
    return Held()


@pytest.fixture
def reads(chains: Held, clock: FakeClock) -> ChainReads:
    return ChainReads(chains, clock)


async def test_only_what_is_missing_goes_out_and_in_one_go(chains: Held, reads: ChainReads) -> None:
    assert set(await reads.read(HEAD, [A, B, A])) == {A, B}
    assert set(await reads.read(HEAD, [A, C, B, Balance(b"\x01" * 20)])) == {A, B, C, Balance(b"\x01" * 20)}
    assert chains.asked == [[A, B], [C, Balance(b"\x01" * 20)]]
    await reads.read(NEXT, [A])
    assert chains.asked[2:] == [[A]]
    assert await reads.read(HEAD, []) == {}


async def test_what_is_being_asked_is_waited_for(chains: Held, reads: ChainReads) -> None:
    chains.go.clear()
    first = asyncio.create_task(reads.read(HEAD, [A, B]))
    await asyncio.sleep(0)
    second = asyncio.create_task(reads.read(HEAD, [B, C]))
    third = asyncio.create_task(reads.read(HEAD, [C, A, D]))
    await asyncio.sleep(0.01)
    assert chains.asked == [[A, B], [C], [D]]
    first.cancel()
    chains.go.set()
    assert set(await second) == {B, C}
    assert set(await third) == {A, C, D}


async def test_a_failure_is_everybodys_who_waited_and_is_not_kept(chains: Held, reads: ChainReads) -> None:
    chains.away = True
    chains.go.clear()
    waiting = [asyncio.create_task(reads.read(HEAD, [A, B])) for _ in range(3)]
    await asyncio.sleep(0)
    chains.go.set()
    for answers in await asyncio.gather(*waiting):
        assert answers == {A: Unread("The chain is away."), B: Unread("The chain is away.")}
    assert chains.asked == [[A, B]]
    chains.away = False
    assert await reads.read(HEAD, [A]) == {A: Returned(bytes(32))}


async def test_what_could_not_be_read_is_asked_again_and_the_rest_is_not(chains: Held, reads: ChainReads) -> None:
    chains.unread = {B}
    assert await reads.read(HEAD, [A, B]) == {A: Returned(bytes(32)), B: Unread("It cannot be read.")}
    chains.unread = set()
    assert await reads.read(HEAD, [A, B]) == {A: Returned(bytes(32)), B: Returned(bytes(32))}
    assert chains.asked == [[A, B], [B]]


async def test_after_a_failure_the_next_question_begins_with_a_new_block(chains: Held, reads: ChainReads) -> None:
    await reads.head("eip155:1", "latest")
    await reads.head("eip155:1", "latest")
    assert chains.heads == 1
    chains.away = True
    await reads.read(HEAD, [A])
    await reads.head("eip155:1", "latest")
    assert chains.heads == 2


async def test_memory_is_bounded_in_number_and_size(
    chains: Held, reads: ChainReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_reads, "MAX_READS", 2)
    assert len(await reads.read(HEAD, [A, B, C])) == 3
    await reads.read(HEAD, [B, C])
    assert chains.asked == [[A, B, C]]
    chains.size = chain_reads.MAX_KEPT + 1
    for _ in range(2):
        await reads.read(NEXT, [A])
    assert chains.asked[1:] == [[A], [A]]


async def test_a_contract_is_looked_for_once_and_what_is_none_each_time(
    chains: Held, reads: ChainReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains.code = False
    assert [await reads.is_contract(HEAD, b"\x01" * 20) for _ in range(2)] == [False, False]
    chains.code = True
    assert [await reads.is_contract(head, b"\x01" * 20) for head in (HEAD, NEXT, HEAD)] == [True] * 3
    assert chains.codes == 3
    monkeypatch.setattr(chain_reads, "MAX_CONTRACTS", 1)
    await reads.is_contract(HEAD, b"\x02" * 20)
    await reads.is_contract(HEAD, b"\x01" * 20)
    assert chains.codes == 5
