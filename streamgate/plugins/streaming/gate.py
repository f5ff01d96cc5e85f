"""May this session be served now? The rule of playback: nothing is served but on an answer that is still good.

A session is served only from an entry in this process whose ``valid_until`` lies in the future. When there is none, the
session's row, the film's and a decision of auth are read once for all who wait. From half of an answer's life on it is
renewed in the background. Whatever cannot be read means no: 503, never bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from streamgate.contracts.auth import Access, Decision, DecisionRequest
from streamgate.contracts.metadata import AssetAccess, Catalog
from streamgate.contracts.streaming import SessionEnded
from streamgate.domain import deadline
from streamgate.domain.asset import Visibility
from streamgate.domain.clock import Clock
from streamgate.domain.errors import (
    ChainUnavailable,
    DeadlineExceeded,
    EntitlementLost,
    NotEntitled,
    NotFound,
    SessionExpired,
    SessionRevoked,
    StreamGateError,
    Unauthenticated,
    Unavailable,
)
from streamgate.domain.identity import Caller, Role
from streamgate.plugins.streaming import store
from streamgate.plugins.streaming.places import Places
from streamgate.plugins.streaming.store import Session
from streamgate.ports.bus import Bus
from streamgate.runtime.database import Database
from streamgate.runtime.events import send_signal

KEPT_AFTER_S = 600
RENEW_PAUSE_MS = 1000
LOOK_S = 8.0
"""Seconds that one look at row, film and policy may take in the background."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes. ``valid_until_ms``: until when it may be served on. ``max_staleness_s``: how late a loss may be noticed.

    ``tokens``: what is watched with, each having ``seats``. ``limited``: whether the account's limit of streams counts.
    """

    valid_until_ms: int
    max_staleness_s: float
    policy_id: str | None
    tokens: tuple[str, ...] = ()
    seats: int | None = None
    limited: bool = True

    def counted_from(self, began_ms: int) -> Grant:
        """The same, good no longer than its staleness from when what it rests on began to be read: reading takes time."""
        until_ms = min(self.valid_until_ms, began_ms + int(self.max_staleness_s * 1000))
        return self if until_ms == self.valid_until_ms else replace(self, valid_until_ms=until_ms)


@dataclass(slots=True)
class Entry:
    """What this process knows of a session."""

    session: Session
    grant: Grant
    looked_at_ms: int
    seen_ms: int
    written_ms: int
    renew_ms: int = 0

    def __post_init__(self) -> None:
        self.renew_ms = self.looked_at_ms + (self.grant.valid_until_ms - self.looked_at_ms) // 2


class Outcomes(Protocol):
    """Counts the gate's answers."""

    def decided(self, outcome: str) -> None:
        """``allow``, ``deny``, ``unknown`` or ``revoked``."""
        ...


@dataclass(slots=True)
class Gate:
    """Decides, remembers for as long as it may, and forgets what changed. ``ttl_s``: life of answers that no policy gave."""

    catalog: Catalog
    access: Access
    database: Database
    clock: Clock
    ttl_s: float
    outcomes: Outcomes
    places: Places
    bus: Bus
    _entries: dict[str, Entry] = field(default_factory=dict)
    _looks: dict[str, asyncio.Task[Entry]] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)

    async def decide(self, caller: Caller, film: AssetAccess, token_ids: tuple[str, ...] = ()) -> Grant:
        """The gate's answer for somebody who wants to begin.

        Raises `NotFound` (not listed), `Unauthenticated`, `NotEntitled` (with leaves), `ChainUnavailable`.
        """
        now = self.clock.now_ms()
        plain = Grant(now + int(self.ttl_s * 1000), self.ttl_s, None, limited=not caller.owns(film.owner))
        if film.visibility is Visibility.PUBLIC or caller.owns(film.owner):
            return plain
        if film.visibility is Visibility.PRIVATE:
            raise NotFound("There is no such film.")
        if caller.role is Role.ANONYMOUS:
            raise Unauthenticated(
                "This film is for those who hold what its policy asks for. Sign in with your wallet first."
            )
        request = DecisionRequest(
            account=caller.account, asset_id=film.id, policy_id=film.policy_id, token_ids=token_ids
        )
        decision = await self.access.decide(request)
        return _grant(decision, film.policy_id)

    async def admit(self, session_id: str, asset_id: str) -> Session:
        """Return when the session may be served this moment; it counts as seen.

        Raises `SessionRevoked`, `SessionExpired`, `EntitlementLost` (with leaves), `NotFound` (the film is gone),
        `ChainUnavailable` or `Unavailable`.
        """
        now = self.clock.now_ms()
        entry = self._entries.get(session_id)
        if entry is None or entry.grant.valid_until_ms <= now or self.places.is_idle(entry.seen_ms, now):
            entry = await asyncio.shield(self._look(session_id))
            now = self.clock.now_ms()
            if entry.grant.valid_until_ms <= now:
                raise ChainUnavailable("The right to watch could not be confirmed in time.", retry_after=1)
        if entry.session.asset_id != asset_id:
            raise NotFound("There is nothing at this address.")
        if entry.session.expires_ms <= now:
            raise SessionExpired("This playback address has reached its end. Start playback again.")
        entry.seen_ms = now
        if now >= entry.renew_ms:
            entry.renew_ms = now + RENEW_PAUSE_MS
            self._look(session_id)
        return entry.session

    def admits(self, session_id: str, asset_id: str, now: int) -> bool:
        """Whether the session may be served this moment by what this process knows; it then counts as seen.

        False says nothing: `admit` finds out. ``now``: ms since the epoch.
        """
        entry = self._entries.get(session_id)
        if entry is None or entry.grant.valid_until_ms <= now or self.places.is_idle(entry.seen_ms, now):
            return False
        if entry.session.asset_id != asset_id or entry.session.expires_ms <= now:
            return False
        entry.seen_ms = now
        if now >= entry.renew_ms:
            entry.renew_ms = now + RENEW_PAUSE_MS
            self._look(session_id)
        return True

    async def settle(self, session: Session, grant: Grant, *, takeover: bool, new: bool = False) -> None:
        """Give a session its place, and its row when it is ``new``; raises `TooManyStreams` or `SeatInUse`."""
        async with self.database.write() as tx:
            if new:
                await store.add(tx, session)
            ended = await self.places.take(
                tx,
                session,
                grant.tokens,
                grant.seats,
                now_ms=self.clock.now_ms(),
                last_seen=self.last_seen,
                takeover=takeover,
                limited=grant.limited,
            )
        await self.tell_ended(ended)

    def begin(self, session: Session, grant: Grant) -> None:
        """Remember the answer that a new session was minted on."""
        now = self.clock.now_ms()
        self._entries[session.id] = Entry(session, grant, now, now, now)

    async def tell_ended(self, session_ids: Iterable[str]) -> None:
        """Have every process drop sessions whose rows were ended."""
        for session_id in session_ids:
            self.forget(session_id)
            await send_signal(self.bus, SessionEnded(session_id=session_id))

    def forget(self, session_id: str) -> None:
        """Look anew before the session is served again."""
        self._entries.pop(session_id, None)
        if session_id in self._looks:
            self._stale.add(session_id)

    def forget_asset(self, asset_id: str) -> None:
        """Look anew at every session of a film."""
        for session_id in [key for key, entry in self._entries.items() if entry.session.asset_id == asset_id]:
            self.forget(session_id)
        self._stale.update(self._looks)

    def forget_policy(self, policy_id: str) -> None:
        """Look anew at every session that a policy admitted."""
        for session_id in [key for key, entry in self._entries.items() if entry.grant.policy_id == policy_id]:
            self.forget(session_id)
        self._stale.update(self._looks)

    def last_seen(self, session: Session) -> int:
        """When the session last asked for something, as far as this process knows."""
        entry = self._entries.get(session.id)
        return max(session.last_seen_ms, entry.seen_ms if entry else 0)

    async def write_heartbeats(self, every_s: float) -> None:
        """Write when sessions were last seen, for those whose row is ``every_s`` behind; forget entries long unused."""
        now = self.clock.now_ms()
        due = {
            key: entry.seen_ms
            for key, entry in self._entries.items()
            if entry.seen_ms > entry.written_ms and now - entry.written_ms >= every_s * 1000
        }
        if due:
            async with self.database.write() as tx:
                await store.seen(tx, due)
            for key, moment in due.items():
                if key in self._entries:
                    self._entries[key].written_ms = moment
        for key in [
            k for k, e in self._entries.items() if now - max(e.seen_ms, e.grant.valid_until_ms) > KEPT_AFTER_S * 1000
        ]:
            del self._entries[key]

    def live(self, idle_s: float) -> int:
        """Sessions that this process served within the idle time."""
        since = self.clock.now_ms() - int(idle_s * 1000)
        return sum(entry.seen_ms >= since for entry in self._entries.values())

    async def close(self) -> None:
        """End looks that are under way."""
        for task in list(self._looks.values()):
            task.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    def _look(self, session_id: str) -> asyncio.Task[Entry]:
        """One look for all who wait for it."""
        running = self._looks.get(session_id)
        if running is not None and session_id not in self._stale:
            return running
        self._stale.discard(session_id)

        async def look() -> Entry:
            try:
                async with deadline.within(LOOK_S):
                    entry = await self._see(session_id)
            except StreamGateError as error:
                self.outcomes.decided(_outcome(error))
                if not isinstance(error, _KEEPS) and self._looks.get(session_id) is task:
                    self._entries.pop(session_id, None)
                raise
            else:
                self.outcomes.decided("allow")
                if self._looks.get(session_id) is task and session_id not in self._stale:
                    self._entries[session_id] = entry
                return entry
            finally:
                if self._looks.get(session_id) is task:
                    del self._looks[session_id]
                    self._stale.discard(session_id)

        task = asyncio.get_running_loop().create_task(look())
        task.add_done_callback(_retrieve)
        self._looks[session_id] = task
        return task

    async def _see(self, session_id: str) -> Entry:
        """Read the session, its film and the decision, and judge."""
        looked_at = self.clock.now_ms()
        known = self._entries.get(session_id)
        async with self.database.read() as connection:
            session = await store.get(connection, session_id)
        if session is None or session.ended_ms is not None:
            raise SessionRevoked("This playback session was ended. Start playback again.")
        if session.expires_ms <= looked_at:
            raise SessionExpired("This playback address has reached its end. Start playback again.")
        film = await self.catalog.access(session.asset_id)
        await self._check_credential(session, film)
        caller = Caller(account=session.account, role=session.role)
        try:
            grant = (await self.decide(caller, film, session.token_ids)).counted_from(looked_at)
        except NotEntitled as lost:
            raise EntitlementLost(
                "Your wallet does not hold any more what this film's policy asks for.", extra=lost.extra
            ) from None
        except (NotFound, Unauthenticated):
            raise SessionRevoked("This film is not open to this session any more.") from None
        seen = known.seen_ms if known else looked_at
        if self.places.is_idle(max(session.last_seen_ms, known.seen_ms if known else 0), looked_at):
            await self.settle(session, grant, takeover=False)
            seen = looked_at
        return Entry(session, grant, looked_at, seen, known.written_ms if known else session.last_seen_ms)

    async def _check_credential(self, session: Session, film: AssetAccess) -> None:
        """Raises `SessionRevoked` when what the session was begun under has ended.

        A fact tells so and ends the session's row; where facts are late, this look holds the bound. A film that is open to
        everybody is served while auth is away.
        """
        if session.auth_session_id is None and session.auth_key_id is None:
            return
        try:
            live = await self.access.credential_live(session.auth_session_id, session.auth_key_id)
        except _KEEPS:
            if film.visibility is not Visibility.PUBLIC:
                raise
            return
        if not live:
            raise SessionRevoked("What this session was begun under has ended. Sign in and start playback again.")


_KEEPS = (Unavailable, DeadlineExceeded)
"""A look that could not see leaves an answer that is still good until it ends by itself."""


def _grant(decision: Decision, policy_id: str | None) -> Grant:
    leaves = {"leaves": msgspec.to_builtins(decision.leaves)}
    if decision.outcome == "allow":
        return Grant(
            decision.valid_until_ms,
            decision.max_staleness_s,
            policy_id,
            tokens=decision.tokens,
            seats=decision.seats_per_token,
        )
    if decision.outcome == "deny":
        raise NotEntitled("Your wallet does not hold what this film's policy asks for; see leaves.", extra=leaves)
    raise ChainUnavailable(
        "Whether your wallet holds what this film's policy asks for cannot be read now.", retry_after=5, extra=leaves
    )


def _outcome(error: StreamGateError) -> str:
    if isinstance(error, EntitlementLost):
        return "deny"
    return "unknown" if isinstance(error, _KEEPS) else "revoked"


def _retrieve(task: asyncio.Task[Entry]) -> None:
    """An error that nobody waits for any more is no warning."""
    if not task.cancelled():
        task.exception()
