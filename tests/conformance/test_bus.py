"""What every bus promises, held against each adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.bus_nats import NatsBus, ended
from streamgate.domain import deadline
from streamgate.domain.errors import ConfigurationError
from streamgate.ports.bus import Bus, Message, Receiver
from tests.support.nats import nats_server
from tests.support.server import free_port

SETTLED_S = 0.05
"""How long a bus may take to deliver what must not be delivered: long enough to be caught, short enough to wait for."""


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    if request.param == "memory":
        async with MemoryBus() as bus:
            yield bus
        return
    with nats_server(tmp_path) as server:
        async with NatsBus(server.url) as bus:
            yield bus


class Ear:
    """Receives messages; refuses the first ``refusals`` of them."""

    def __init__(self, refusals: int = 0) -> None:
        self.got: list[Message] = []
        self.asked = 0
        self._refusals = refusals
        self._heard = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.asked += 1
        if self.asked <= self._refusals:
            raise RuntimeError("not now")
        self.got.append(message)
        self._heard.set()

    async def until(self, count: int) -> list[Message]:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self._heard.clear()
                await self._heard.wait()
        return self.got


async def publish(bus: Bus, message: Message) -> None:
    """As the outbox does it: again and again until the bus takes it."""
    async with asyncio.timeout(10):
        while True:
            try:
                await bus.publish(message)
            except Exception:
                await asyncio.sleep(0.01)
            else:
                return


async def consuming(stack: AsyncExitStack, bus: Bus, consumer: str, receiver: Receiver, subject: str = "a.b") -> None:
    await stack.enter_async_context(await bus.consume(consumer, subject, receiver))


async def test_a_fact_reaches_every_consumer_whole(bus: Bus) -> None:
    one, two, elsewhere = Ear(), Ear(), Ear()
    fact = Message("a.b", b"\x00\xff", id="evt_1", headers={"request_id": "r"})
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "one", one)
        await consuming(stack, bus, "two", two)
        await consuming(stack, bus, "one", elsewhere, subject="a.c")
        await publish(bus, fact)
        assert await one.until(1) == [fact]
        assert await two.until(1) == [fact]
        await asyncio.sleep(SETTLED_S)
        assert elsewhere.got == []


async def test_facts_come_in_order(bus: Bus) -> None:
    ear = Ear()
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "one", ear)
        for n in range(50):
            await publish(bus, Message("a.b", str(n).encode(), id=f"evt_{n}"))
        assert [int(m.payload) for m in await ear.until(50)] == list(range(50))


async def test_a_consumer_that_refuses_gets_the_fact_again_and_does_not_harm_the_others(bus: Bus) -> None:
    slow, well = Ear(refusals=2), Ear()
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "slow", slow)
        await consuming(stack, bus, "well", well)
        await publish(bus, Message("a.b", b"x", id="evt_1"))
        await slow.until(1)
        assert slow.asked == 3
        assert len(await well.until(1)) == 1


async def test_a_fact_may_be_published_again(bus: Bus) -> None:
    ear = Ear()
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "one", ear)
        for _ in range(2):
            await publish(bus, Message("a.b", b"x", id="evt_1"))
        await publish(bus, Message("a.b", b"y", id="evt_2"))
        async with asyncio.timeout(10):
            while not ear.got or ear.got[-1].payload != b"y":
                await asyncio.sleep(0.005)
        assert {m.id for m in ear.got} == {"evt_1", "evt_2"}


async def test_nothing_is_delivered_once_a_consumer_is_gone(bus: Bus) -> None:
    ear = Ear()
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "one", ear)
    await publish(bus, Message("a.b", b"x", id="evt_1"))
    await asyncio.sleep(SETTLED_S)
    assert ear.got == []
    async with AsyncExitStack() as stack:
        await consuming(stack, bus, "one", ear)
        await publish(bus, Message("a.b", b"y", id="evt_2"))
        # A bus that remembers for its consumers brings what came meanwhile first.
        while (await ear.until(1))[-1].id != "evt_2":
            await ear.until(2)


async def test_a_signal_reaches_everybody_who_listens_now(bus: Bus) -> None:
    ears = [Ear() for _ in range(3)]
    other, late = Ear(), Ear()
    async with AsyncExitStack() as stack:
        for ear in ears:
            await stack.enter_async_context(await bus.listen("s.t", ear))
        await stack.enter_async_context(await bus.listen("s.u", other))
        await bus.signal(Message("s.t", b"1"))
        for ear in ears:
            assert [m.payload for m in await ear.until(1)] == [b"1"]
        await stack.enter_async_context(await bus.listen("s.t", late))
        await bus.signal(Message("s.t", b"2"))
        assert [m.payload for m in await late.until(1)] == [b"2"]
        assert other.got == []
    await bus.signal(Message("s.t", b"3"))
    await asyncio.sleep(SETTLED_S)
    assert [len(ear.got) for ear in ears] == [2, 2, 2]


async def test_of_a_group_one_member_hears_each_signal(bus: Bus) -> None:
    members, alone = [Ear(), Ear()], Ear()
    async with AsyncExitStack() as stack:
        for member in members:
            await stack.enter_async_context(await bus.listen("s.t", member, group="g"))
        await stack.enter_async_context(await bus.listen("s.t", alone))
        for n in range(40):
            await bus.signal(Message("s.t", str(n).encode()))
        await alone.until(40)
        await asyncio.sleep(SETTLED_S)
        heard = [m.payload for member in members for m in member.got]
        assert sorted(heard) == sorted(str(n).encode() for n in range(40))
        assert all(member.got for member in members)


async def test_who_signals_waits_for_nobody_and_is_not_harmed_by_anybody(bus: Bus) -> None:
    gate, well = asyncio.Event(), Ear()

    async def stuck(message: Message) -> None:
        await gate.wait()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(await bus.listen("s.t", stuck))
        await stack.enter_async_context(await bus.listen("s.t", Ear(refusals=99)))
        await stack.enter_async_context(await bus.listen("s.t", well))
        async with asyncio.timeout(1):
            await bus.signal(Message("s.t", b"1"))
            await bus.signal(Message("s.t", b"2"))
        assert len(await well.until(2)) == 2


async def test_who_hears_a_signal_is_not_bound_by_the_deadline_of_who_sent_it(bus: Bus) -> None:
    found: asyncio.Queue[float | None] = asyncio.Queue()

    async def hear(message: Message) -> None:
        await found.put(deadline.remaining_s())

    async with await bus.listen("s.t", hear):
        async with deadline.within(5):
            await bus.signal(Message("s.t", b""))
        async with asyncio.timeout(10):
            assert await found.get() is None


async def test_a_working_bus_is_healthy(bus: Bus) -> None:
    assert await bus.healthy()


async def test_facts_outlive_a_crash_of_the_server_and_consumers_go_on(tmp_path: Path) -> None:
    """Published, server killed, started again: whatever was taken is delivered, and publishing goes on."""
    with nats_server(tmp_path) as server:
        async with NatsBus(server.url) as bus:
            ear = Ear()
            async with AsyncExitStack() as stack:
                await consuming(stack, bus, "one", ear)
                for n in range(60):
                    await publish(bus, Message("a.b", b"x", id=f"evt_{n}"))
                    if n in {20, 40}:
                        server.kill()
                        await asyncio.sleep(0.3)
                        server.start()
                async with asyncio.timeout(30):
                    while len({m.id for m in ear.got}) < 60:
                        await asyncio.sleep(0.05)


async def test_processes_of_one_consumer_share_its_facts(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with NatsBus(server.url) as one, NatsBus(server.url) as two, AsyncExitStack() as stack:
            ears = Ear(), Ear()
            await consuming(stack, one, "same", ears[0])
            await consuming(stack, two, "same", ears[1])
            for n in range(60):
                await publish(one, Message("a.b", b"x", id=f"evt_{n}"))
            async with asyncio.timeout(10):
                while sum(len(ear.got) for ear in ears) < 60:
                    await asyncio.sleep(0.02)
            assert sorted(m.id for ear in ears for m in ear.got) == sorted(f"evt_{n}" for n in range(60))
            assert all(ear.got for ear in ears)


async def test_a_server_that_is_away_is_said_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="NATS does not answer"):
        async with NatsBus(f"nats://user:secret@127.0.0.1:{free_port()}"):
            pass


async def test_in_memory_a_name_consumes_a_subject_once() -> None:
    async with MemoryBus() as bus, AsyncExitStack() as stack:
        await consuming(stack, bus, "one", Ear())
        with pytest.raises(ValueError, match="already"):
            await bus.consume("one", "a.b", Ear())


async def test_in_memory_listeners_end_with_the_bus() -> None:
    ended = asyncio.Event()

    async def hear(message: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with MemoryBus() as bus, await bus.listen("s.t", hear):
        await bus.signal(Message("s.t", b""))
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_a_task_that_missed_that_it_was_cancelled_is_ended_all_the_same() -> None:
    missed = 0

    async def deaf() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if missed:
                    raise
                missed += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ended({task})
    assert (missed, task.cancelled()) == (1, True)
