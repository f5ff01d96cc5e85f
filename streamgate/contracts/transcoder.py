"""Transcoding, owned by the transcoder: the timeline of a film and its encoded segments."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from streamgate.contracts.declare import contract, fact, user
from streamgate.contracts.upload import SourcePart
from streamgate.domain.identity import Caller, Role


class RenditionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One rendition as playlists need it: fixed when the film is planned, long before it is encoded.

    ``timescale`` ticks per second. ``boundaries`` are the presentation times, in ticks of this rendition, at which
    its segments begin, and last the end of the rendition: segment n (from 0) covers
    ``[boundaries[n], boundaries[n + 1])``, so there are ``len(boundaries) - 1`` segments. ``bandwidth`` is the peak
    in bits per second. ``init_key`` is the storage key of its init segment. Renditions of the same ``kind`` and ``track``
    are one thing at several rates. ``passthrough``: the track of the source index whose samples are the segments, as they
    were uploaded; None for what is encoded.
    """

    name: str
    kind: Literal["video", "audio"]
    codecs: str
    timescale: int
    boundaries: tuple[int, ...]
    bandwidth: int
    init_key: str
    width: int | None = None
    height: int | None = None
    frame_rate: tuple[int, int] | None = None
    channels: int | None = None
    sample_rate: int | None = None
    language: str | None = None
    label: str | None = None
    default: bool = False
    track: int = 0
    passthrough: int | None = None


class CaptionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One text subtitle track as WebVTT. ``name`` is its name in media URLs, ``language`` BCP 47, ``key`` its storage key."""

    name: str
    key: str
    language: str | None = None
    label: str | None = None
    default: bool = False
    forced: bool = False


class Storyboard(msgspec.Struct, frozen=True, kw_only=True):
    """Small pictures of a film in sheets: ``count`` of them, one every ``interval_ms``, each ``width`` x ``height`` pixels,
    ``columns`` x ``rows`` on a sheet, row by row."""

    interval_ms: int
    count: int
    columns: int
    rows: int
    width: int
    height: int

    @property
    def sheets(self) -> int:
        """How many sheets there are."""
        return -(-self.count // (self.columns * self.rows))


class SourcePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where segments that are served as uploaded come from: the sample index (the storage key below which it lies), and the
    objects that, joined in order, are the source. They stay as long as the film. ``announced``: bytes of a source that is still
    being uploaded, of which the parts are what is there."""

    index_key: str
    parts: tuple[SourcePart, ...]
    announced: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole source."""
        return sum(part.length for part in self.parts) if self.announced is None else self.announced


class Growing(msgspec.Struct, frozen=True, kw_only=True):
    """A film that is still being uploaded: its timeline ends where what has arrived does, and goes on in the next answer.

    ``target_s``: no segment of it is longer, rounded to whole seconds.
    """

    target_s: int


class Presentation(msgspec.Struct, frozen=True, kw_only=True):
    """A film's one timeline: everything that playlists and manifests are written from. ``duration`` in seconds.

    ``plan_id`` changes when the film is planned anew; segments of different plans never mix.
    Renditions stand lowest compatible first, video before audio; before them all the source itself, where every player
    takes it. ``source`` is there when a rendition passes through. ``growing``: None once the upload is complete.
    """

    asset_id: str
    plan_id: str
    duration: float
    renditions: tuple[RenditionPlan, ...]
    poster_key: str | None = None
    captions: tuple[CaptionPlan, ...] = ()
    storyboard: Storyboard | None = None
    source: SourcePlan | None = None
    growing: Growing | None = None


class SegmentObject(msgspec.Struct, frozen=True):
    """An encoded segment (or a sheet of the storyboard) in storage: its key (never overwritten) and its length in bytes."""

    key: str
    length: int


class PosterPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the job ``transcoder.poster`` (queue ``transcode``): make the film's poster from second ``at_s`` of it.

    ``at_s`` None: a fitting one. ``wish`` (ms since the epoch) orders wishes: a poster made for an older one than is
    stored is thrown away.
    """

    asset_id: str
    at_s: float | None = None
    wish: int = 0


@fact("transcoder.media_replaced")
class MediaReplaced(msgspec.Struct, frozen=True, kw_only=True):
    """A film was planned anew or its segments were dropped: cached answers about it are stale."""

    asset_id: str


@contract(
    service="transcoder",
    routes=("/api/v1/assets/{asset_id}/retry", "/api/v1/assets/{asset_id}/cancel"),
)
class Transcoding(Protocol):
    """Plans and segments of films. Listens to `metadata.AssetDeleted` to stop work and delete its objects."""

    async def presentation(self, asset_id: str) -> Presentation:
        """The film's timeline; `NotFound` when it has none yet (not planned) or cannot be played."""
        ...

    async def ensure(self, asset_id: str, rendition: str, number: int) -> SegmentObject:
        """Segment ``number`` (from 0) of an encoded rendition, encoded now if it is missing.

        A missing segment's chunk moves to the front of the queue, for that rendition, and the call waits until it
        is stored. Raises `NotFound` for a rendition or number that is not in the plan, `DeadlineExceeded` when the
        call's deadline ends first (the work goes on), `Unavailable` when the film failed or was canceled or the
        process is stopping. A call that is cancelled takes its wish back: what nobody waits for any more is made as
        if nobody had asked, and gives way to what somebody waits for.
        """
        ...

    async def stored(self, asset_id: str, rendition: str, number: int) -> SegmentObject | None:
        """As `ensure`, but None for a segment that is not encoded: nothing is asked for and nothing waited for."""
        ...

    async def sheet(self, asset_id: str, number: int) -> SegmentObject:
        """Sheet ``number`` (from 0) of the film's storyboard, made now if it is missing; raises as `ensure`."""
        ...

    async def lost(self, asset_id: str, rendition: str, number: int, key: str) -> None:
        """The object that `ensure` named is not in storage any more: the next `ensure` makes the segment again. Idempotent."""
        ...

    @user(Role.CREATOR, "assets:write")
    async def retry(self, caller: Caller, asset_id: str) -> None:
        """Start again what failed or was canceled, from the source; keeps what is already encoded where it still fits.

        Raises `Conflict` when the film is neither failed nor canceled.
        """
        ...

    @user(Role.CREATOR, "assets:write")
    async def cancel(self, caller: Caller, asset_id: str) -> None:
        """Stop the encoders of the film now; what is already encoded still plays. Idempotent.

        Raises `Conflict` when the film is already ready or failed.
        """
        ...
