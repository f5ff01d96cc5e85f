"""Room for streams: as many as the account and the token have, released by silence, taken over when asked."""

from __future__ import annotations

import asyncio

import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.domain.errors import SeatInUse, SessionRevoked, TooManyStreams
from streamgate.domain.identity import Prefix, Role, new_id
from streamgate.plugins.streaming import store
from streamgate.plugins.streaming.gate import Gate, Grant
from streamgate.plugins.streaming.places import Places
from streamgate.plugins.streaming.store import Session
from streamgate.runtime.database import Database
from tests.support.clock import FakeClock
from tests.unit.streaming.test_gate import ASSET, TTL_S, VIEWER, World

IDLE_S = 90
SEVEN = "eip155:1/erc721:0xaa/7"
OTHER = "eip155:1:0x" + "cc" * 20


@pytest.fixture
def world(clock: FakeClock) -> World:
    return World(clock)


@pytest.fixture
def gate(world: World, database: Database, clock: FakeClock) -> Gate:
    return Gate(world, world, database, clock, float(TTL_S), world, Places(2, IDLE_S * 1000), MemoryBus())  # type: ignore[arg-type]


async def start(
    gate: Gate, clock: FakeClock, account: str = VIEWER, *tokens: str, takeover: bool = False, limited: bool = True
) -> str:
    clock.advance(1)
    now = clock.now_ms()
    session = Session(
        id=new_id(Prefix.PLAYBACK),
        asset_id=ASSET,
        account=account,
        role=Role.VIEWER,
        auth_session_id="ses_1",
        auth_key_id=None,
        created_ms=now,
        last_seen_ms=now,
        expires_ms=now + 6 * 3600 * 1000,
    )
    grant = Grant(now + TTL_S * 1000, TTL_S, None, tokens=tokens, seats=1 if tokens else None, limited=limited)
    await gate.settle(session, grant, takeover=takeover, new=True)
    gate.begin(session, grant)
    return session.id


async def test_an_account_has_so_many_streams_and_no_more(gate: Gate, clock: FakeClock) -> None:
    first, second = await start(gate, clock), await start(gate, clock)
    with pytest.raises(TooManyStreams) as refused:
        await start(gate, clock)
    assert [shown["session_id"] for shown in refused.value.extra["sessions"]] in ([first, second], [second, first])
    await start(gate, clock, OTHER)
    await start(gate, clock, limited=False)


async def test_many_at_once_get_no_more_places_than_there_are(gate: Gate, clock: FakeClock) -> None:
    starts = [start(gate, clock) for _ in range(12)] + [start(gate, clock, OTHER, SEVEN) for _ in range(6)]
    found = await asyncio.gather(*starts, return_exceptions=True)
    begun = [one for one in found[:12] if isinstance(one, str)], [one for one in found[12:] if isinstance(one, str)]
    assert [len(one) for one in begun] == [2, 1]
    assert all(isinstance(one, TooManyStreams | SeatInUse | str) for one in found), found


async def test_a_refused_stream_leaves_no_row(gate: Gate, database: Database, clock: FakeClock) -> None:
    await start(gate, clock)
    await start(gate, clock)
    with pytest.raises(TooManyStreams):
        await start(gate, clock)
    async with database.read() as connection:
        assert len(await store.live(connection, VIEWER, clock.now_ms(), 100)) == 2


async def test_taking_over_ends_the_oldest_stream(gate: Gate, clock: FakeClock) -> None:
    first, second = await start(gate, clock), await start(gate, clock)
    third = await start(gate, clock, takeover=True)
    with pytest.raises(SessionRevoked):
        await gate.admit(first, ASSET)
    for live in (second, third):
        assert (await gate.admit(live, ASSET)).id == live


async def test_silence_frees_the_place_and_the_next_request_takes_it_again(gate: Gate, clock: FakeClock) -> None:
    first, second = await start(gate, clock), await start(gate, clock)
    clock.advance(IDLE_S + 5)
    assert (await gate.admit(second, ASSET)).id == second
    third = await start(gate, clock)
    assert not gate.admits(first, ASSET, clock.now_ms())
    with pytest.raises(TooManyStreams):
        await gate.admit(first, ASSET)
    clock.advance(IDLE_S + 5)
    assert (await gate.admit(first, ASSET)).id == first
    assert (await gate.admit(third, ASSET)).id == third


async def test_requests_keep_the_place_although_the_row_is_written_rarely(gate: Gate, clock: FakeClock) -> None:
    first, second = await start(gate, clock), await start(gate, clock)
    for _ in range(5):
        clock.advance(IDLE_S / 2)
        await gate.admit(first, ASSET)
        await gate.admit(second, ASSET)
    with pytest.raises(TooManyStreams):
        await start(gate, clock)


async def test_a_token_has_one_seat(gate: Gate, clock: FakeClock) -> None:
    first = await start(gate, clock, VIEWER, SEVEN)
    with pytest.raises(SeatInUse) as refused:
        await start(gate, clock, VIEWER, SEVEN)
    assert [shown["session_id"] for shown in refused.value.extra["sessions"]] == [first]
    await start(gate, clock, VIEWER, SEVEN.replace("/7", "/8"))
    second = await start(gate, clock, VIEWER, SEVEN, takeover=True)
    with pytest.raises(SessionRevoked):
        await gate.admit(first, ASSET)
    assert (await gate.admit(second, ASSET)).id == second


async def test_the_seat_goes_with_the_token_to_its_new_holder(gate: Gate, clock: FakeClock) -> None:
    first = await start(gate, clock, VIEWER, SEVEN)
    second = await start(gate, clock, OTHER, SEVEN)
    with pytest.raises(SessionRevoked):
        await gate.admit(first, ASSET)
    assert (await gate.admit(second, ASSET)).id == second
