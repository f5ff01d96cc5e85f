"""Catalog, owned by the metadata service: what films there are, who owns them, who may see them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

import msgspec

from streamgate.contracts.declare import contract, fact, user
from streamgate.domain.asset import AssetState, Failure, MediaWarning, Visibility
from streamgate.domain.identity import Caller, Role


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of the uploaded file, as the probe found it. Durations in seconds."""

    index: int
    kind: Literal["video", "audio", "subtitle", "other"]
    codec: str
    language: str | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    rotation: int = 0
    channels: int | None = None
    sample_rate: int | None = None


class Rendition(msgspec.Struct, frozen=True, kw_only=True):
    """One way to watch or hear the film. ``name`` is its folder in media URLs; ``bandwidth`` in bits per second."""

    name: str
    kind: Literal["video", "audio"]
    codecs: str
    bandwidth: int
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    language: str | None = None
    state: Literal["pending", "partial", "ready"] = "pending"


class SourceMode(msgspec.Struct, frozen=True):
    """Whether the uploaded bytes are served as they are or encoded, and why."""

    mode: Literal["passthrough", "encode"]
    reason: str


class PolicySummary(msgspec.Struct, frozen=True):
    """What a listing tells of a film's policy: its id, version and name. Never its addresses."""

    id: str
    version: int
    name: str


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A film as its viewers and its owner see it. ``progress`` from 0 to 1; ``duration`` in seconds; ``cold_days`` as in
    `AssetChanges`. ``playable`` may be true while ``state`` is ``uploading``: what has arrived of the film then plays."""

    id: str
    title: str
    description: str
    owner: str
    state: AssetState
    playable: bool
    progress: float
    visibility: Visibility
    created_at: datetime
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    source: SourceMode | None = None
    tracks: tuple[Track, ...] = ()
    renditions: tuple[Rendition, ...] = ()
    policy_id: str | None = None
    policy: PolicySummary | None = None
    warnings: tuple[MediaWarning, ...] = ()
    error: Failure | None = None
    poster_url: str | None = None
    cold_days: float | None = None


class AssetPage(msgspec.Struct, frozen=True):
    """One page of a listing; ``next_cursor`` is opaque, None on the last page."""

    items: tuple[Asset, ...]
    next_cursor: str | None


class NewAsset(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when an upload begins."""

    title: str
    description: str = ""
    visibility: Visibility = Visibility.PRIVATE
    policy_id: str | None = None


class AssetChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out (UNSET) stays. ``policy_id`` null detaches the policy.

    ``poster_time`` is the second of the film that its poster shows. ``cold_days``: days after which the film's encoded video
    is deleted when nobody watched it, to be encoded anew when someone watches; 0 never; null as the server is set
    (`transcoder.cold_days`).
    """

    title: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    visibility: Visibility | msgspec.UnsetType = msgspec.UNSET
    policy_id: str | msgspec.UnsetType | None = msgspec.UNSET
    poster_time: float | msgspec.UnsetType = msgspec.UNSET
    cold_days: float | msgspec.UnsetType | None = msgspec.UNSET


class AssetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``limit`` from 1 to 100. ``mine`` keeps only what the caller owns. ``search`` matches title and description."""

    limit: int = 20
    cursor: str | None = None
    search: str | None = None
    mine: bool = False


class AssetAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate needs of a film, and nothing more."""

    id: str
    owner: str
    visibility: Visibility
    policy_id: str | None
    playable: bool
    duration: float | None
    poster_key: str | None = None


class MediaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the transcoder knows of a film's media. ``revision`` grows with every report; an older one is refused.

    ``state`` is derived by the transcoder from its chunks, never counted. ``poster_key`` is a storage key.
    """

    asset_id: str
    revision: int
    state: AssetState
    playable: bool
    progress: float
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    source: SourceMode | None = None
    tracks: tuple[Track, ...] = ()
    renditions: tuple[Rendition, ...] = ()
    warnings: tuple[MediaWarning, ...] = ()
    error: Failure | None = None
    poster_key: str | None = None


class ColdDays(msgspec.Struct, frozen=True, kw_only=True):
    """A film that says itself after how many days unwatched its ladder is dropped; 0: never."""

    asset_id: str
    days: float


class ColdDaysPage(msgspec.Struct, frozen=True):
    """Up to 1,000 such films; ``next_cursor`` is opaque, None on the last page."""

    items: tuple[ColdDays, ...]
    next_cursor: str | None


@fact("metadata.asset_changed")
class AssetChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Visibility, policy or owner of a film changed; whoever serves it looks again."""

    asset_id: str


@fact("metadata.asset_deleted")
class AssetDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """A film is gone; every service deletes what it owns of it."""

    asset_id: str


@contract(
    service="metadata",
    routes=(
        "/api/v1/assets",
        "/api/v1/assets/{asset_id}",
        "/api/v1/assets/{asset_id}/events",
        "/api/v1/assets/{asset_id}/poster.jpg",
    ),
)
class Catalog(Protocol):
    """Films and their owners. A film that the caller may not list is `NotFound` everywhere."""

    @user(Role.CREATOR, "assets:write")
    async def create(self, caller: Caller, new: NewAsset) -> Asset:
        """A new film of the caller's, in state ``uploading``.

        Raises `ValidationFailed` for an empty or over-long title, `Forbidden` or `NotFound` for a policy that
        is not the caller's.
        """
        ...

    @user(Role.ANONYMOUS, "assets:read")
    async def get(self, caller: Caller, asset_id: str) -> Asset:
        """The film as the caller may see it; `NotFound` when there is none or it is not listed to the caller."""
        ...

    @user(Role.ANONYMOUS, "assets:read")
    async def list(self, caller: Caller, query: AssetQuery) -> AssetPage:
        """Newest first: public and gated films, and the caller's own; an administrator sees all."""
        ...

    @user(Role.CREATOR, "assets:write")
    async def update(self, caller: Caller, asset_id: str, changes: AssetChanges) -> Asset:
        """Change what `AssetChanges` names; announces `AssetChanged` when the gate is affected."""
        ...

    @user(Role.CREATOR, "assets:write")
    async def delete(self, caller: Caller, asset_id: str) -> None:
        """Delete the film; announces `AssetDeleted` in the same transaction. Idempotent for its owner."""
        ...

    async def require_owner(self, caller: Caller, asset_id: str) -> None:
        """Return when the caller may manage the film; `NotFound` when it is not listed to the caller, else `Forbidden`."""
        ...

    async def access(self, asset_id: str) -> AssetAccess:
        """What the gate needs of the film; `NotFound` when it does not exist."""
        ...

    async def discard(self, asset_id: str) -> None:
        """Drop a film whose upload ended without becoming one (state ``uploading`` only); idempotent."""
        ...

    async def cold_days(self, cursor: str | None) -> ColdDaysPage:
        """The films that have ``cold_days`` of their own, in steady order.

        ``cursor``: what the page before named, None for the first page.
        """
        ...

    async def report(self, report: MediaReport) -> bool:
        """Take over what the transcoder knows. False when a newer revision is already stored or the film is gone."""
        ...
