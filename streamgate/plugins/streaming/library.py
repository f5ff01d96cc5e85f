"""What is served of a film: playlists written from its timeline, and objects from storage or made now."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog

from streamgate.contracts.cache import Purge, Warm
from streamgate.contracts.metadata import Catalog
from streamgate.contracts.transcoder import (
    CaptionPlan,
    MediaReplaced,
    Presentation,
    RenditionPlan,
    SegmentObject,
    Transcoding,
)
from streamgate.domain import deadline
from streamgate.domain.clock import Clock
from streamgate.domain.errors import DeadlineExceeded, NotFound, StreamGateError, Unavailable
from streamgate.packaging import dash, hls
from streamgate.packaging.cmaf import key_frame
from streamgate.packaging.thumbnails import storyboard_vtt
from streamgate.plugins.streaming.passthrough import Passthrough
from streamgate.ports.cache import Cache
from streamgate.ports.storage import BlobStore

PRESENTATION_AGE_S = 60.0
GROWING_AGE_S = 1.0
HOT_S = 3600.0
PATIENCE_S = 1.0
"""Seconds that a request waits for a timeline to be read again; then the known one plays on."""

MAX_PRESENTATIONS = 64
MAX_OBJECTS = 20_000

PLAYLIST = "application/vnd.apple.mpegurl"
MANIFEST = "application/dash+xml"
SEGMENT = "video/iso.segment"
VIDEO = "video/mp4"
AUDIO = "audio/mp4"
JPEG = "image/jpeg"
VTT = "text/vtt; charset=utf-8"

STORYBOARD = "storyboard"

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to answer with. ``etag`` with its quotes; ``immutable``: the address always means these bytes.

    ``good_until``: monotonic seconds until which the address may be answered so again without asking, unless the library's
    ``generation`` changes; ``key``: under which the cache has the bytes, None when they are to be kept as they are.
    """

    data: bytes
    media_type: str
    etag: str
    immutable: bool
    good_until: float = 0.0
    key: str | None = None


@dataclass(slots=True)
class _Known:
    presentation: Presentation
    until: float
    playlists: dict[str, Body]


class Library:
    """Answers for what stands under a film's media address. ``segment_wait_s``: how long a missing segment is waited for."""

    def __init__(
        self,
        *,
        transcoding: Transcoding,
        catalog: Catalog,
        blobs: BlobStore,
        cache: Cache,
        clock: Clock,
        segment_wait_s: float,
    ) -> None:
        self._transcoding = transcoding
        self._catalog = catalog
        self._blobs = blobs
        self._cache = cache
        self._clock = clock
        self._segment_wait_s = segment_wait_s
        self._passthrough = Passthrough(blobs)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looks: dict[str, asyncio.Task[_Known]] = {}
        self.generation = 0
        """Grows when something that was answered before may be different now."""
        self._objects: OrderedDict[tuple[str, str, int], SegmentObject] = OrderedDict()

    async def master(self, asset_id: str) -> Body:
        """The multivariant playlist; `NotFound` for a film that is not planned."""
        known = await self._presentation(asset_id)
        return _playlist(known, "master", lambda: hls.master_playlist(known.presentation))

    async def manifest(self, asset_id: str) -> Body:
        """The DASH manifest; `NotFound` for a film that is not planned, `Unavailable` for one that is still being uploaded."""
        known = await self._presentation(asset_id)
        if known.presentation.growing is not None:
            raise Unavailable("While a film is uploaded it plays by HLS; by DASH once it is there.", retry_after=5)
        return _playlist(known, "manifest", lambda: dash.manifest(known.presentation), MANIFEST)

    async def playlist(self, asset_id: str, rendition: str) -> Body:
        """A rendition's media playlist, complete from the start; while the film is uploaded, what is there."""
        known = await self._presentation(asset_id)
        plan = _rendition(known, rendition)
        growing = known.presentation.growing
        return _playlist(known, rendition, lambda: hls.media_playlist(plan, growing=growing))

    async def iframes(self, asset_id: str, rendition: str) -> Body:
        """The I-frame playlist of a video rendition."""
        known = await self._presentation(asset_id)
        plan = _rendition(known, rendition)
        _has_key_frames(plan)
        return _playlist(known, f"{rendition}/iframes", lambda: hls.iframe_playlist(plan))

    async def key_frame(self, asset_id: str, rendition: str, number: int) -> Body:
        """The first picture of a segment of a video rendition, as a segment of its own."""
        _has_key_frames(_rendition(await self._presentation(asset_id), rendition))
        whole = await self.segment(asset_id, rendition, number)
        return Body(key_frame(whole.data), SEGMENT, _etag(f"{whole.etag}:key"), immutable=True)

    async def caption_playlist(self, asset_id: str, name: str) -> Body:
        """The playlist of a caption track."""
        known = await self._presentation(asset_id)
        plan, duration = _caption(known, name), known.presentation.duration
        return _playlist(known, f"captions/{name}", lambda: hls.caption_playlist(plan, duration))

    async def captions(self, asset_id: str, name: str) -> Body:
        """A caption track."""
        plan = _caption(await self._presentation(asset_id), name)
        data = await self._hot(plan.key, asset_id, lambda: self._blobs.read(plan.key))
        return Body(data, VTT, _etag(plan.key), immutable=False)

    async def storyboard(self, asset_id: str) -> Body:
        """The storyboard's cues; `NotFound` for a film without pictures."""
        known = await self._presentation(asset_id)
        found, duration = known.presentation.storyboard, known.presentation.duration
        if found is None:
            raise NotFound("This film has no storyboard.")
        return _playlist(known, "storyboard", lambda: storyboard_vtt(found, duration), VTT)

    async def sheet(self, asset_id: str, number: int) -> Body:
        """A sheet of the storyboard, from memory, from storage, or made now; raises as `segment`."""
        known = await self._presentation(asset_id)
        mark = (known.presentation.plan_id, STORYBOARD, number)
        key = f"sheet:{known.presentation.plan_id}:{number}"
        data = await self._hot(key, asset_id, lambda: self._load(asset_id, mark))
        return Body(data, JPEG, _etag(f"{key}:{len(data)}"), immutable=True)

    async def place(self, what: str, asset_id: str, *given: str | int) -> str | None:
        """The storage key of what a method of this library would fetch; None for what is written and not stored.

        A segment (or sheet) that is missing is made first; raises as that method does.
        """
        if what == "init":
            return _rendition(await self._presentation(asset_id), str(given[0])).init_key
        if what in {"segment", "sheet"}:
            rendition = STORYBOARD if what == "sheet" else str(given[0])
            known = await self._presentation(asset_id)
            if what == "segment" and _rendition(known, rendition).passthrough is not None:
                return None
            async with deadline.within(self._segment_wait_s):
                return (await self._ensure(asset_id, rendition, int(given[-1]))).key
        return None

    async def has_storyboard(self, asset_id: str) -> bool:
        """Whether the film has one."""
        try:
            return (await self._presentation(asset_id)).presentation.storyboard is not None
        except NotFound:
            return False

    async def init(self, asset_id: str, rendition: str) -> Body:
        """A rendition's init segment."""
        known = await self._presentation(asset_id)
        plan = _rendition(known, rendition)
        data = await self._hot(plan.init_key, asset_id, lambda: self._blobs.read(plan.init_key))
        media_type, etag = VIDEO if plan.kind == "video" else AUDIO, _etag(plan.init_key)
        return Body(data, media_type, etag, immutable=True, good_until=known.until, key=plan.init_key)

    async def segment(self, asset_id: str, rendition: str, number: int) -> Body:
        """A segment, from memory, from storage, or made now.

        Raises `DeadlineExceeded` when it takes too long to make (the work goes on), `NotFound` outside the plan.
        """
        known = await self._presentation(asset_id)
        plan = _rendition(known, rendition)
        if not 0 <= number < len(plan.boundaries) - 1:
            raise NotFound("The film has no such segment.")
        mark = (known.presentation.plan_id, rendition, number)
        key = _segment_key(known, rendition, number)
        data = await self._hot(key, asset_id, lambda: self._made(known.presentation, plan, mark))
        return _segment(known, key, data)

    def segment_at_hand(self, asset_id: str, rendition: str, number: int) -> Body | None:
        """A segment of the upload's own bytes where it can be made without waiting for anything; None says nothing."""
        known = self._known.get(asset_id)
        if known is None or known.until <= self._clock.monotonic():
            return None
        plan = next((plan for plan in known.presentation.renditions if plan.name == rendition), None)
        if plan is None or plan.passthrough is None or not 0 <= number < len(plan.boundaries) - 1:
            return None
        key = _segment_key(known, rendition, number)
        data = self._passthrough.at_hand(known.presentation, plan, number)
        if data is None:
            return None
        self._cache.keep(key, data, HOT_S, tags=(f"asset:{asset_id}",))
        return _segment(known, key, data)

    async def poster(self, asset_id: str) -> Body:
        """The film's poster."""
        key = (await self._catalog.access(asset_id)).poster_key
        if key is None:
            raise NotFound("This film has no poster yet.")
        data = await self._hot(key, asset_id, lambda: self._blobs.read(key))
        return Body(data, JPEG, _etag(key), immutable=False)

    async def media_replaced(self, fact: MediaReplaced) -> None:
        """Listens: the film was planned anew."""
        await self.drop(fact.asset_id)

    async def purged(self, signal: Purge) -> None:
        """Listens: an administrator threw cached answers away, perhaps in another process."""
        await self._cache.purge(signal.tags)
        self.generation += 1
        for asset_id in list(self._known):
            if not signal.tags or f"asset:{asset_id}" in signal.tags:
                del self._known[asset_id]

    async def warm(self, signal: Warm) -> None:
        """Listens: bring the beginnings of films into the cache, as far as they are encoded."""
        for asset_id in signal.asset_ids:
            try:
                await self._warm(asset_id, signal.segments)
            except StreamGateError as error:
                structlog.get_logger().warning("a film was not warmed", asset_id=asset_id, reason=error.detail)

    async def _warm(self, asset_id: str, segments: int) -> None:
        known = await self._presentation(asset_id)
        for rendition in known.presentation.renditions:
            await self.init(asset_id, rendition.name)
            for number in range(min(segments, len(rendition.boundaries) - 1)):
                passes = rendition.passthrough is not None
                if passes or await self._transcoding.stored(asset_id, rendition.name, number) is not None:
                    await self.segment(asset_id, rendition.name, number)

    async def drop(self, asset_id: str) -> None:
        """Forget a film."""
        self.generation += 1
        self._known.pop(asset_id, None)
        await self._cache.purge((f"asset:{asset_id}",))

    async def _presentation(self, asset_id: str) -> _Known:
        known = self._known.get(asset_id)
        if known is not None and known.until > self._clock.monotonic():
            self._known.move_to_end(asset_id)
            return known
        look = self._looks.get(asset_id)
        if look is None:
            look = self._looks[asset_id] = asyncio.create_task(self._look(asset_id, known))
            look.add_done_callback(partial(self._looked, asset_id))
        if known is None:
            return await asyncio.shield(look)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.shield(look)
        except (TimeoutError, Unavailable, DeadlineExceeded):
            # A timeline changes only when the film is made anew, and a fact says so: what is known plays on meanwhile.
            known.until = self._clock.monotonic() + PATIENCE_S
            return known

    async def _look(self, asset_id: str, known: _Known | None) -> _Known:
        generation = self.generation
        async with deadline.within(deadline.DEFAULT_S):
            presentation = await self._transcoding.presentation(asset_id)
        age_s = PRESENTATION_AGE_S if presentation.growing is None else GROWING_AGE_S
        fresh = _Known(presentation, self._clock.monotonic() + age_s, {})
        if known is not None and known.presentation == presentation:
            fresh.playlists = known.playlists
        if self.generation == generation:
            _keep(self._known, asset_id, fresh, MAX_PRESENTATIONS)
        return fresh

    def _looked(self, asset_id: str, look: asyncio.Task[_Known]) -> None:
        """An error that nobody waits for any more is no warning."""
        self._looks.pop(asset_id, None)
        if not look.cancelled():
            look.exception()

    async def _hot(self, key: str, asset_id: str, load: Callable[[], Awaitable[bytes]]) -> bytes:
        return await self._cache.get_or_load(key, HOT_S, load, tags=(f"asset:{asset_id}",))

    async def _made(self, presentation: Presentation, plan: RenditionPlan, mark: tuple[str, str, int]) -> bytes:
        if plan.passthrough is None:
            return await self._load(presentation.asset_id, mark)
        async with deadline.within(self._segment_wait_s):
            return await self._passthrough.segment(presentation, plan, mark[2])

    async def _load(self, asset_id: str, mark: tuple[str, str, int]) -> bytes:
        _, rendition, number = mark
        async with deadline.within(self._segment_wait_s):
            for _ in range(2):
                found = self._objects.get(mark) or await self._ensure(asset_id, rendition, number)
                _keep(self._objects, mark, found, MAX_OBJECTS)
                try:
                    data = await self._blobs.read(found.key)
                except NotFound:
                    data = b""
                if len(data) == found.length:
                    return data
                # The object is gone or damaged: storage is a cache of what the encoder makes, so it is made again.
                del self._objects[mark]
                await self._transcoding.lost(asset_id, rendition, number, found.key)
        raise Unavailable("The segment could not be read. Try again.", retry_after=2)

    async def _ensure(self, asset_id: str, rendition: str, number: int) -> SegmentObject:
        if rendition == STORYBOARD:
            return await self._transcoding.sheet(asset_id, number)
        return await self._transcoding.ensure(asset_id, rendition, number)


def _segment_key(known: _Known, rendition: str, number: int) -> str:
    return f"segment:{known.presentation.plan_id}:{rendition}:{number}"


def _segment(known: _Known, key: str, data: bytes) -> Body:
    etag = _etag(f"{key}:{len(data)}")
    return Body(data, SEGMENT, etag, immutable=True, good_until=known.until, key=key)


def _has_key_frames(plan: RenditionPlan) -> None:
    """Raises `NotFound` for what has no I-frame playlist."""
    if plan.kind != "video":
        raise NotFound("Sound has no key frames.")
    if plan.passthrough is not None:
        raise NotFound("The uploaded video has no I-frame playlist; the encoded renditions have.")


def _caption(known: _Known, name: str) -> CaptionPlan:
    for caption in known.presentation.captions:
        if caption.name == name:
            return caption
    raise NotFound("The film has no such captions.")


def _rendition(known: _Known, name: str) -> RenditionPlan:
    for rendition in known.presentation.renditions:
        if rendition.name == name:
            return rendition
    raise NotFound("The film has no such rendition.")


def _playlist(known: _Known, name: str, write: Callable[[], str], media_type: str = PLAYLIST) -> Body:
    body = known.playlists.get(name)
    if body is None or body.good_until != known.until:
        data = write().encode() if body is None else body.data
        body = Body(data, media_type, _etag(data.decode()), immutable=False, good_until=known.until)
        known.playlists[name] = body
    return body


def _etag(text: str) -> str:
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def _keep(kept: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > limit:
        kept.popitem(last=False)
