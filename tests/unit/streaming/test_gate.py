"""The gate: what is served, for how long, and what happens when nobody knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.contracts.auth import Decision, DecisionRequest, LeafResult
from streamgate.contracts.metadata import AssetAccess
from streamgate.domain.asset import Visibility
from streamgate.domain.errors import (
    ChainUnavailable,
    EntitlementLost,
    NotEntitled,
    NotFound,
    SessionExpired,
    SessionRevoked,
    StreamGateError,
    Unauthenticated,
    Unavailable,
)
from streamgate.domain.identity import ANONYMOUS, Caller, Prefix, Role, new_id
from streamgate.plugins.streaming import store
from streamgate.plugins.streaming.gate import Gate
from streamgate.plugins.streaming.places import Places
from streamgate.plugins.streaming.store import Session
from streamgate.runtime.database import Database
from tests.support.clock import FakeClock

OWNER, VIEWER = "eip155:1:0x" + "aa" * 20, "eip155:1:0x" + "bb" * 20
ASSET, POLICY = "ast_00d22jarvp9jv1wzwjpj", "pol_00d22jarvp9jv1wzwjpk"
LEAF = LeafResult(path="/expr/erc721", decision="deny", need="1", have="0")
TTL_S = 30


class World:
    """The other services, as a test wants them: a hostile or absent peer is an exception."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.film: AssetAccess | StreamGateError = AssetAccess(
            id=ASSET, owner=OWNER, visibility=Visibility.GATED, policy_id=POLICY, playable=True, duration=60
        )
        self.outcome: str | StreamGateError = "allow"
        self.decisions = 0
        self.counted: list[str] = []
        self.slow: asyncio.Event | None = None
        self.reading_s = 0.0
        self.live: bool | StreamGateError = True

    async def credential_live(self, session_id: str | None, key_id: str | None) -> bool:
        if isinstance(self.live, StreamGateError):
            raise self.live
        return self.live

    async def access(self, asset_id: str) -> AssetAccess:
        self.clock.advance(self.reading_s)
        if isinstance(self.film, StreamGateError):
            raise self.film
        return self.film

    async def decide(self, request: DecisionRequest) -> Decision:
        self.decisions += 1
        now = self.clock.now_ms()
        outcome = self.outcome
        if self.slow is not None:
            await self.slow.wait()
        if isinstance(outcome, StreamGateError):
            raise outcome
        return Decision(
            outcome=outcome,  # type: ignore[arg-type]
            leaves=(LEAF,),
            policy_version=1,
            valid_until_ms=now + TTL_S * 1000,
            max_staleness_s=TTL_S,
        )

    def decided(self, outcome: str) -> None:
        self.counted.append(outcome)

    def show(self, **changes: Any) -> None:
        import msgspec

        assert isinstance(self.film, AssetAccess)
        self.film = msgspec.structs.replace(self.film, **changes)


@pytest.fixture
def world(clock: FakeClock) -> World:
    return World(clock)


@pytest.fixture
def gate(world: World, database: Database, clock: FakeClock) -> Gate:
    return Gate(world, world, database, clock, float(TTL_S), world, Places(2, 90_000), MemoryBus())  # type: ignore[arg-type]


async def session(
    database: Database, clock: FakeClock, account: str | None = VIEWER, role: Role = Role.VIEWER
) -> Session:
    made = Session(
        id=new_id(Prefix.PLAYBACK),
        asset_id=ASSET,
        account=account,
        role=role,
        auth_session_id="ses_1",
        auth_key_id=None,
        created_ms=clock.now_ms(),
        last_seen_ms=clock.now_ms(),
        expires_ms=clock.now_ms() + 6 * 3600 * 1000,
    )
    async with database.write() as tx:
        await store.add(tx, made)
    return made


async def settle(gate: Gate) -> None:
    """Let looks in the background end."""
    while gate._looks:
        await asyncio.gather(*gate._looks.values(), return_exceptions=True)


async def test_an_answer_is_used_for_its_life_and_renewed_from_half_of_it_on(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    for _ in range(14):
        await gate.admit(watching.id, ASSET)
        clock.advance(1)
    assert world.decisions == 1
    for _ in range(60):
        clock.advance(1)
        await gate.admit(watching.id, ASSET)
        await settle(gate)
    assert 4 <= world.decisions <= 8


async def test_many_who_wait_cost_one_look(gate: Gate, world: World, database: Database, clock: FakeClock) -> None:
    watching = await session(database, clock)
    await asyncio.gather(*(gate.admit(watching.id, ASSET) for _ in range(50)))
    assert world.decisions == 1
    assert world.counted == ["allow"]


async def test_what_a_credential_was_ended_for_is_refused_at_the_next_look_though_nobody_told(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    world.live = False
    clock.advance(TTL_S)
    with pytest.raises(SessionRevoked):
        await gate.admit(watching.id, ASSET)


async def test_while_auth_is_away_only_what_is_open_to_everybody_is_served(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    world.live = Unavailable("auth is away")
    with pytest.raises(Unavailable):
        await gate.admit(watching.id, ASSET)
    world.show(visibility=Visibility.PUBLIC)
    assert (await gate.admit(watching.id, ASSET)).id == watching.id


async def test_an_answer_is_as_old_as_the_first_thing_that_was_read_for_it(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    world.reading_s = 5
    for visibility in (Visibility.GATED, Visibility.PUBLIC):
        world.show(visibility=visibility)
        gate.forget(watching.id)
        began = clock.now_ms()
        await gate.admit(watching.id, ASSET)
        assert gate.admits(watching.id, ASSET, began + TTL_S * 1000 - 1)
        assert not gate.admits(watching.id, ASSET, began + TTL_S * 1000)
        await settle(gate)


async def test_a_loss_is_noticed_within_the_ttl_and_a_return_resumes(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    world.outcome = "deny"
    clock.advance(TTL_S)
    with pytest.raises(EntitlementLost) as lost:
        await gate.admit(watching.id, ASSET)
    assert lost.value.extra["leaves"][0]["path"] == "/expr/erc721"
    world.outcome = "allow"
    await gate.admit(watching.id, ASSET)


async def test_a_renewal_that_finds_a_loss_ends_playing_at_once(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    world.outcome = "deny"
    clock.advance(TTL_S / 2)
    await gate.admit(watching.id, ASSET)
    await settle(gate)
    with pytest.raises(EntitlementLost):
        await gate.admit(watching.id, ASSET)


@pytest.mark.parametrize("outcome", ["unknown", Unavailable("auth is away"), ChainUnavailable("no chain")])
async def test_what_nobody_knows_is_served_on_until_the_last_answer_ends_and_not_a_moment_longer(
    gate: Gate, world: World, database: Database, clock: FakeClock, outcome: Any
) -> None:
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    world.outcome = outcome
    clock.advance(TTL_S - 0.001)
    await gate.admit(watching.id, ASSET)
    await settle(gate)
    clock.advance(0.001)
    with pytest.raises(Unavailable):
        await gate.admit(watching.id, ASSET)
    world.outcome = "allow"
    await gate.admit(watching.id, ASSET)


async def test_a_session_that_ended_or_never_was_is_revoked(gate: Gate, database: Database, clock: FakeClock) -> None:
    with pytest.raises(SessionRevoked):
        await gate.admit(new_id(Prefix.PLAYBACK), ASSET)
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    async with database.write() as tx:
        await store.end(tx, clock.now_ms(), id=watching.id)
    gate.forget(watching.id)
    with pytest.raises(SessionRevoked):
        await gate.admit(watching.id, ASSET)


async def test_a_session_opens_one_film_only_and_until_its_hard_end(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    with pytest.raises(NotFound):
        await gate.admit(watching.id, new_id(Prefix.ASSET))
    clock.advance(6 * 3600)
    with pytest.raises(SessionExpired):
        await gate.admit(watching.id, ASSET)


async def test_a_film_that_is_taken_back_ends_its_sessions(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    owners = await session(database, clock, OWNER, Role.CREATOR)
    await gate.admit(watching.id, ASSET)
    world.show(visibility=Visibility.PRIVATE)
    gate.forget_asset(ASSET)
    with pytest.raises(SessionRevoked):
        await gate.admit(watching.id, ASSET)
    await gate.admit(owners.id, ASSET)
    world.film = NotFound("There is no such film.")
    gate.forget_asset(ASSET)
    with pytest.raises(NotFound):
        await gate.admit(owners.id, ASSET)


async def test_a_changed_policy_is_asked_anew_also_while_a_look_is_under_way(
    gate: Gate, world: World, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    await gate.admit(watching.id, ASSET)
    world.outcome = "deny"
    gate.forget_policy(POLICY)
    with pytest.raises(EntitlementLost):
        await gate.admit(watching.id, ASSET)
    world.outcome, world.slow = "allow", asyncio.Event()
    before = asyncio.create_task(gate.admit(watching.id, ASSET))
    while world.decisions < 3:
        await asyncio.sleep(0.001)
    gate.forget_policy(POLICY)
    world.outcome = "deny"
    world.slow.set()
    await asyncio.wait([before])
    with pytest.raises(EntitlementLost):
        await gate.admit(watching.id, ASSET)


@pytest.mark.parametrize(
    ("visibility", "policy", "caller", "expected"),
    [
        (Visibility.PUBLIC, None, ANONYMOUS, None),
        (Visibility.PRIVATE, None, ANONYMOUS, NotFound),
        (Visibility.PRIVATE, POLICY, Caller(account=VIEWER, role=Role.CREATOR), NotFound),
        (Visibility.PRIVATE, None, Caller(account=OWNER, role=Role.CREATOR), None),
        (Visibility.PRIVATE, None, Caller(account="admin", role=Role.ADMIN), None),
        (Visibility.GATED, POLICY, ANONYMOUS, Unauthenticated),
        (Visibility.GATED, POLICY, Caller(account=OWNER, role=Role.CREATOR), None),
        (Visibility.GATED, POLICY, Caller(account=VIEWER, role=Role.VIEWER), NotEntitled),
    ],
)
async def test_who_may_begin(
    gate: Gate,
    world: World,
    visibility: Visibility,
    policy: str | None,
    caller: Caller,
    expected: type[Exception] | None,
) -> None:
    world.outcome = "deny"
    world.show(visibility=visibility, policy_id=policy)
    assert isinstance(world.film, AssetAccess)
    if expected is None:
        assert (await gate.decide(caller, world.film)).max_staleness_s == TTL_S
    else:
        with pytest.raises(expected):
            await gate.decide(caller, world.film)


async def test_when_a_session_was_last_seen_is_written_now_and_then(
    gate: Gate, database: Database, clock: FakeClock
) -> None:
    watching = await session(database, clock)
    begin = clock.now_ms()
    await gate.admit(watching.id, ASSET)
    for seconds in (5, 20, 10):
        clock.advance(seconds)
        await gate.admit(watching.id, ASSET)
        await gate.write_heartbeats(30)
        async with database.read() as connection:
            row = await store.get(connection, watching.id)
        assert row is not None
        assert row.last_seen_ms == (begin if clock.now_ms() - begin < 30_000 else clock.now_ms())
    assert gate.live(90) == 1
    clock.advance(91)
    assert gate.live(90) == 0
    clock.advance(3600)
    await gate.write_heartbeats(30)
    assert not gate._entries
