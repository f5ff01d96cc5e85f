"""Playback: sessions, the gate, and the media address."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from streamgate.contracts.auth import Access, CredentialEnded, PolicyChanged
from streamgate.contracts.cache import Purge, Warm
from streamgate.contracts.metadata import AssetChanged, AssetDeleted, Catalog
from streamgate.contracts.streaming import Playback, SessionEnded
from streamgate.contracts.transcoder import MediaReplaced, Transcoding
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.streaming.settings import StreamingSettings
from streamgate.ports.bus import Bus
from streamgate.ports.cache import Cache
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.site import Site
from streamgate.runtime.telemetry import Metrics

if TYPE_CHECKING:
    from streamgate.plugins.streaming.gate import Gate
    from streamgate.plugins.streaming.library import Library
    from streamgate.plugins.streaming.media_app import MediaApp
    from streamgate.plugins.streaming.service import PlaybackService
    from streamgate.plugins.streaming.tokens import PlaybackTokens

HEARTBEATS_EVERY_S = 5.0
SWEEP_EVERY_S = 3600.0


@asynccontextmanager
async def setup(context: Context[StreamingSettings]) -> AsyncGenerator[Parts, None]:
    """Start playback."""
    from streamgate.plugins.streaming.counters import PlaybackCounters
    from streamgate.plugins.streaming.gate import Gate
    from streamgate.plugins.streaming.http import controllers
    from streamgate.plugins.streaming.library import Library
    from streamgate.plugins.streaming.places import Places
    from streamgate.plugins.streaming.service import PlaybackService
    from streamgate.plugins.streaming.tokens import PlaybackTokens, load_keys
    from streamgate.runtime.background import every

    settings, clock, site = context.settings, context.need(Clock), context.need(Site)
    catalog, access, database = context.need(Catalog), context.need(Access), context.need(Database)
    tokens = PlaybackTokens(load_keys(settings.playback_keys_file, site.data_dir))
    counters = PlaybackCounters(context.need(Metrics).registry, lambda: gate.live(settings.idle_s))
    places = Places(most=settings.max_streams, idle_ms=int(settings.idle_s * 1000))
    gate = Gate(catalog, access, database, clock, settings.ttl_s, counters, places, context.need(Bus))
    library = Library(
        transcoding=context.need(Transcoding),
        catalog=catalog,
        blobs=context.need(BlobStore),
        cache=context.need(Cache),
        clock=clock,
        segment_wait_s=settings.segment_wait_s,
    )
    service = PlaybackService(
        settings=settings,
        gate=gate,
        tokens=tokens,
        library=library,
        catalog=catalog,
        access=access,
        database=database,
        site=site,
        clock=clock,
    )
    playback: Playback = service
    async with (
        every(HEARTBEATS_EVERY_S, service.write_heartbeats, name="playback heartbeats"),
        context.need(Schedules).every(SWEEP_EVERY_S, service.sweep, name="playback sweep", at_once=True),
    ):
        yield Parts(
            provides={Playback: playback},
            routes=controllers(playback),
            mounts={"/p/": _media(context, tokens, gate, library)},
            listens=_listeners(service, library),
            health=service.health,
        )
        await service.write_heartbeats()
        await gate.close()


def _media(context: Context[StreamingSettings], tokens: PlaybackTokens, gate: Gate, library: Library) -> MediaApp:
    from streamgate.plugins.streaming.media_app import MediaApp

    return MediaApp(
        tokens=tokens,
        gate=gate,
        library=library,
        cache=context.need(Cache),
        clock=context.need(Clock),
        metrics=context.need(Metrics),
        sign=_signing(context.need(BlobStore), context.need(Site).redirect_s),
    )


def _signing(blobs: BlobStore, seconds: int | None) -> Callable[[str], Awaitable[str]] | None:
    """Signs addresses of stored objects, where that is wanted and the store can; None where media comes from here."""
    return partial(blobs.presign, expires_s=seconds) if seconds is not None and blobs.can_presign else None


def _listeners(service: PlaybackService, library: Library) -> dict[type, Callable[[Any], Awaitable[None]]]:
    return {
        CredentialEnded: service.credential_ended,
        AssetChanged: service.asset_changed,
        AssetDeleted: service.asset_deleted,
        PolicyChanged: service.policy_changed,
        SessionEnded: service.session_ended,
        MediaReplaced: library.media_replaced,
        Purge: library.purged,
        Warm: library.warm,
    }


plugin = Plugin(
    name="streaming",
    settings=StreamingSettings,
    setup=setup,
    requires=(Database, Schedules, Bus, Cache, BlobStore, Site, Clock, Metrics, Catalog, Access, Transcoding),
    provides=(Playback,),
)
