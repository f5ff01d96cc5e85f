"""Room: how many streams an account may have at a time, and how many may watch with one token.

A session has its place for as long as something asks for its media; after the idle time the place is free, and the next
request takes it again or is refused. All is decided inside a write transaction, from rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from streamgate.domain.clock import instant
from streamgate.domain.errors import SeatInUse, TooManyStreams
from streamgate.plugins.streaming import store
from streamgate.plugins.streaming.store import Session
from streamgate.runtime.database import Transaction

LastSeen = Callable[[Session], int]
"""When a session was last seen as far as this process knows (ms since the epoch)."""


@dataclass(frozen=True, slots=True)
class Places:
    """``most``: streams of one account at a time (0: any number); ``idle_ms``: after which a place is free."""

    most: int
    idle_ms: int

    def is_idle(self, seen_ms: int, now_ms: int) -> bool:
        """Whether a session that was seen then has lost its place by now."""
        return now_ms - seen_ms > self.idle_ms

    async def take(
        self,
        tx: Transaction,
        session: Session,
        tokens: Iterable[str],
        seats: int | None,
        *,
        now_ms: int,
        last_seen: LastSeen,
        takeover: bool,
        limited: bool,
    ) -> list[str]:
        """Give the session its place; ids of the sessions that were ended for it.

        ``limited``: whether the account's limit counts (it does not for owners). Raises `TooManyStreams` or `SeatInUse`,
        naming the sessions in the way; then nothing has changed.
        """
        tokens = tuple(dict.fromkeys(tokens))
        await store.one_at_a_time(tx, [f"account:{session.account}", *tokens])
        ended: list[str] = []
        if limited and self.most and session.account is not None:
            found = await store.live(tx, session.account, now_ms, 1000)
            others = [s for s in found if self._counts(s, session, now_ms, last_seen)]
            full = TooManyStreams(f"This account has {len(others)} streams, which is as many as it may have at a time.")
            ended += _make_room(others, self.most, takeover, full)
        for token in tokens:
            found = await store.seated(tx, token, now_ms)
            others = [s for s in found if self._counts(s, session, now_ms, last_seen) and s.id not in ended]
            # The chain says whose the token is now: who watched with it before has no claim to it any more.
            ended += [s.id for s in others if s.account != session.account]
            own = [s for s in others if s.account == session.account]
            taken = SeatInUse(
                "Somebody watches with this token already. Take over, or wait until that stream has ended."
            )
            ended += _make_room(own, seats or 1, takeover, taken)
        for session_id in ended:
            await store.end(tx, now_ms, id=session_id)
        await store.sit(tx, session.id, tokens, now_ms)
        return ended

    def _counts(self, other: Session, session: Session, now_ms: int, last_seen: LastSeen) -> bool:
        return other.id != session.id and not self.is_idle(last_seen(other), now_ms)


def _make_room(others: list[Session], most: int, takeover: bool, full: TooManyStreams | SeatInUse) -> list[str]:
    """Ids of the oldest sessions that have to end so that one more fits; raises ``full`` when they may not."""
    surplus = len(others) - most + 1
    if surplus <= 0:
        return []
    if not takeover:
        full.extra = {"sessions": [_shown(session) for session in others]}
        raise full
    return [session.id for session in sorted(others, key=lambda session: session.id)[:surplus]]


def _shown(session: Session) -> dict[str, str]:
    return {
        "session_id": session.id,
        "asset_id": session.asset_id,
        "started_at": instant(session.created_ms).isoformat(),
    }
