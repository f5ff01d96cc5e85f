"""Playback, owned by streaming: playback sessions and the capability tokens that stand in media URLs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from streamgate.contracts.declare import contract, signal, user
from streamgate.domain.identity import Caller, Role


class PlaybackRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hints of the viewer; they only narrow what is looked at and are verified.

    ``token_ids`` (at most 16, decimal): the tokens to watch with, where the policy has seats. ``takeover``: end the oldest
    stream (or whoever sits on the seat) where there is no room left.
    """

    wallet: str | None = None
    takeover: bool = False
    token_ids: tuple[str, ...] = ()


class PlaybackStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute URLs that play in any player until ``expires_at``, for as long as the viewer stays entitled.

    ``max_staleness_s``: how long after a loss of entitlement bytes may still be served, at most.
    """

    session_id: str
    hls_url: str
    dash_url: str | None
    poster_url: str | None
    storyboard_url: str | None
    expires_at: datetime
    max_staleness_s: float


class PlaybackView(msgspec.Struct, frozen=True, kw_only=True):
    """A live playback session as its holder sees it."""

    session_id: str
    asset_id: str
    started_at: datetime
    last_seen_at: datetime
    expires_at: datetime


class PlaybackPage(msgspec.Struct, frozen=True):
    items: tuple[PlaybackView, ...]
    next_cursor: str | None = None


@signal("streaming.session_ended")
class SessionEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A playback session ended: processes that hold it in memory drop it at once."""

    session_id: str


@contract(
    service="streaming",
    routes=("/api/v1/assets/{asset_id}/playback", "/api/v1/playback", "/api/v1/playback/{session_id}", "/p/{path}"),
)
class Playback(Protocol):
    """Playback sessions."""

    @user(Role.ANONYMOUS, "playback:write")
    async def start(self, caller: Caller, asset_id: str, request: PlaybackRequest) -> PlaybackStarted:
        """Evaluate the gate and mint a session.

        Raises `NotFound` (not listed), `Unauthenticated` (nobody is signed in and the film is not public),
        `NotEntitled` with the leaves, `ChainUnavailable` when the answer is unknown, `Conflict` when the film is
        not playable yet, `TooManyStreams` or `SeatInUse` (with ``sessions``) when there is no room and no ``takeover``.
        """
        ...

    @user(Role.VIEWER, "playback:read")
    async def list(self, caller: Caller) -> PlaybackPage:
        """The caller's live sessions, newest first."""
        ...

    @user(Role.VIEWER, "playback:write")
    async def end(self, caller: Caller, session_id: str) -> None:
        """End a session of the caller's; `NotFound` for anybody else's. Idempotent."""
        ...
