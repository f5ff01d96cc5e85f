"""Facts: in the transaction or not at all, at least once to everybody, in order, effectively once with the inbox."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
import structlog
from sqlalchemy import func, select, text

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.contracts.declare import fact, signal
from streamgate.domain.clock import SystemClock
from streamgate.ports.bus import Message
from streamgate.runtime import outbox as outbox_module
from streamgate.runtime.database import Database, open_database
from streamgate.runtime.events import send_signal, wire
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.tables import inbox
from tests.support.clock import FakeClock


@fact("film.shown")
class Shown(msgspec.Struct, frozen=True):
    n: int


@signal("film.looked")
class Looked(msgspec.Struct, frozen=True):
    n: int


class Audience:
    """Consumers by name; what each one took; ``refusing``: those that refuse for now."""

    def __init__(self) -> None:
        self.took: dict[str, list[int]] = defaultdict(list)
        self.refusing: set[str] = set()

    def listener(self, name: str) -> Callable[[Shown], Awaitable[None]]:
        async def take(shown: Shown) -> None:
            if name in self.refusing:
                raise RuntimeError(name)
            self.took[name].append(shown.n)

        return take


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus() as bus:
        yield bus


@pytest.fixture
async def audience(bus: MemoryBus) -> AsyncIterator[Audience]:
    audience = Audience()
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            await stack.enter_async_context(wire(bus, name, {Shown: audience.listener(name)}))
        yield audience


async def announce(database: Database, outbox: Outbox, *numbers: int) -> list[str]:
    async with database.write() as tx:
        return [await outbox.announce(tx, Shown(n)) for n in numbers]


async def test_a_fact_is_delivered_to_every_consumer_soon_after_the_commit(
    database: Database, bus: MemoryBus, audience: Audience
) -> None:
    outbox = Outbox(database, bus, SystemClock())
    async with outbox.relaying():
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):  # the poll comes every two seconds
            await announce(database, outbox, 1, 2)
            while (await outbox.backlog())[0]:
                await asyncio.sleep(0.005)
    assert audience.took == {"one": [1, 2], "two": [1, 2]}


async def test_a_fact_of_a_transaction_that_is_rolled_back_is_never_delivered(
    database: Database, bus: MemoryBus, audience: Audience, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    with pytest.raises(RuntimeError):  # noqa: PT012 (the transaction is what raises)
        async with database.write() as tx:
            await outbox.announce(tx, Shown(1))
            assert await outbox.deliver() == 0
            raise RuntimeError
    assert await outbox.deliver() == 0
    assert audience.took == {}


async def test_facts_come_in_the_order_they_were_announced_in(
    database: Database, bus: MemoryBus, audience: Audience, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    await announce(database, outbox, *range(50))
    await announce(database, outbox, *range(50, 250))
    assert [await outbox.deliver() for _ in range(4)] == [100, 100, 50, 0]
    assert audience.took["one"] == list(range(250))


async def test_a_fact_that_was_refused_comes_before_those_announced_after_it(
    database: Database, bus: MemoryBus, audience: Audience, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    audience.refusing = {"one"}
    await announce(database, outbox, 1)
    await outbox.deliver()
    audience.refusing = set()
    clock.advance(0.5)
    await announce(database, outbox, 2)
    clock.advance(0.5)
    await outbox.deliver()
    assert audience.took["one"] == [1, 2]


async def test_a_consumer_that_refused_gets_the_fact_again_and_the_others_do_not(
    database: Database, bus: MemoryBus, audience: Audience, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    audience.refusing = {"two"}
    await announce(database, outbox, 1, 2)
    assert await outbox.deliver() == 0
    assert audience.took == {"one": [1, 2]}
    assert await outbox.deliver() == 0, "not before its time"
    clock.advance(1)
    await outbox.deliver()
    clock.advance(1)
    assert await outbox.backlog() == (2, 2.0)
    assert await outbox.deliver() == 0, "each refusal doubles the wait"
    audience.refusing = set()
    clock.advance(1)
    assert await outbox.deliver() == 2
    assert audience.took == {"one": [1, 2], "two": [1, 2]}
    clock.advance(3600)
    assert await outbox.deliver() == 0


async def test_a_consumer_that_hangs_does_not_keep_the_others_from_their_facts(
    database: Database, clock: FakeClock
) -> None:
    async with MemoryBus(receiver_s=0.05) as bus:
        audience, outbox = Audience(), Outbox(database, bus, clock)

        async def hang(shown: Shown) -> None:
            await asyncio.Event().wait()

        async with wire(bus, "hanging", {Shown: hang}), wire(bus, "well", {Shown: audience.listener("well")}):
            await announce(database, outbox, 1)
            assert await outbox.deliver() == 0
        assert audience.took == {"well": [1]}
        assert (await outbox.backlog())[0] == 1


async def test_what_was_not_delivered_is_delivered_by_the_next_process(database_url: str, clock: FakeClock) -> None:
    async with open_database(database_url) as database, MemoryBus() as bus:
        await announce(database, Outbox(database, bus, clock), 7)
    audience = Audience()
    async with (
        open_database(database_url) as database,
        MemoryBus() as bus,
        wire(bus, "one", {Shown: audience.listener("one")}),
        Outbox(database, bus, clock).relaying(),
        asyncio.timeout(2),
    ):
        while not audience.took:
            await asyncio.sleep(0.005)
    assert audience.took == {"one": [7]}


async def test_the_inbox_makes_an_effect_happen_once(database: Database, bus: MemoryBus, clock: FakeClock) -> None:
    outbox = Outbox(database, bus, clock)
    found = []
    for consumer, event, kept in (
        ("a", "evt_1", False),
        ("a", "evt_1", True),
        ("a", "evt_1", True),
        ("b", "evt_1", True),
    ):
        async with database.write() as tx:
            found.append(await outbox.first_time(tx, consumer, event))
            if not kept:
                await tx.rollback()
    assert found == [True, True, False, True]


async def test_only_what_is_over_is_forgotten(
    database: Database, bus: MemoryBus, audience: Audience, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    (old,) = await announce(database, outbox, 1)
    await outbox.deliver()
    audience.refusing = {"two"}
    (refused,) = await announce(database, outbox, 2)
    await outbox.deliver()
    for event in (old, refused):
        async with database.write() as tx:
            await outbox.first_time(tx, "one", event)
    clock.advance(100)
    (fresh,) = await announce(database, outbox, 3)
    audience.refusing = set()
    await bus.publish(Message("film.shown", msgspec.msgpack.encode(Shown(3)), id=fresh))
    assert await outbox.delete_delivered(clock.now_ms()) == 1
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM outbox"))).scalar() == 2
        assert [row.event_id for row in await connection.execute(inbox.select())] == [refused]


async def test_the_relay_outlives_a_failure_it_does_not_know(
    database: Database, bus: MemoryBus, audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "POLL_S", 0.02)
    outbox = Outbox(database, bus, SystemClock())
    deliver, failures = outbox.deliver, 0

    async def failing() -> int:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise RuntimeError
        return await deliver()

    monkeypatch.setattr(outbox, "deliver", failing)
    await announce(database, outbox, 1)
    async with outbox.relaying(), asyncio.timeout(2):
        while not audience.took:
            await asyncio.sleep(0.005)


async def test_facts_and_signals_carry_the_request_and_the_trace_they_came_from(
    database: Database, bus: MemoryBus, clock: FakeClock
) -> None:
    outbox = Outbox(database, bus, clock)
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    sent = ("request-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

    async def take(_: Shown | Looked) -> None:
        context = structlog.contextvars.get_contextvars()
        await heard.put((context["request_id"], context["traceparent"]))

    async with wire(bus, "one", {Shown: take, Looked: take}):
        with structlog.contextvars.bound_contextvars(request_id=sent[0], traceparent=sent[1]):
            await announce(database, outbox, 1)
            await send_signal(bus, Looked(1))
        await outbox.deliver()
        assert await heard.get() == sent
        assert await heard.get() == sent
        await send_signal(bus, Looked(2))
        begun = await heard.get()
        assert begun[0] != sent[0]
        assert begun[1] != sent[1]


async def test_only_facts_are_announced(database: Database, bus: MemoryBus, clock: FakeClock) -> None:
    with pytest.raises(TypeError):
        async with database.write() as tx:
            await Outbox(database, bus, clock).announce(tx, Looked(1))
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(text("outbox")))).scalar() == 0


async def test_a_signal_reaches_whoever_listens_as_a_value(bus: MemoryBus) -> None:
    heard: asyncio.Queue[Looked] = asyncio.Queue()
    async with wire(bus, "one", {Looked: heard.put}):
        await send_signal(bus, Looked(4))
        async with asyncio.timeout(1):
            assert await heard.get() == Looked(4)
    await send_signal(bus, Looked(5))
    await asyncio.sleep(0.01)
    assert heard.empty()
