"""The timeline of a film that was played before is good while the transcoder is away, and forgotten when it is made anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streamgate.adapters.cache_memory import MemoryCache
from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.transcoder import MediaReplaced, Presentation, RenditionPlan
from streamgate.domain.errors import NotFound, StreamGateError, Unavailable
from streamgate.plugins.streaming import library as module
from streamgate.plugins.streaming.library import PRESENTATION_AGE_S, Library
from tests.support.clock import FakeClock

ASSET = "ast_00d22jarvp9jv1wzwjpj"


class Transcoding:
    """Another process, as a test wants it."""

    def __init__(self) -> None:
        self.asked = 0
        self.away: StreamGateError | None = None
        self.silent: asyncio.Event | None = None
        self.plan_id = "pln_1"

    async def presentation(self, asset_id: str) -> Presentation:
        self.asked += 1
        if self.silent is not None:
            await self.silent.wait()
        if self.away is not None:
            raise self.away
        rendition = RenditionPlan(
            name=self.plan_id,
            kind="video",
            codecs="avc1.42c01f",
            timescale=1,
            boundaries=(0, 4),
            bandwidth=1,
            init_key="init",
            width=320,
            height=240,
        )
        return Presentation(asset_id=asset_id, plan_id=self.plan_id, duration=4, renditions=(rendition,))


@pytest.fixture
def transcoding() -> Transcoding:
    return Transcoding()


@pytest.fixture
def library(transcoding: Transcoding, clock: FakeClock, tmp_path: Path) -> Library:
    cache = MemoryCache(1 << 20, clock=clock)
    blobs = LocalBlobStore(tmp_path)
    return Library(
        transcoding=transcoding,  # type: ignore[arg-type]
        catalog=None,  # type: ignore[arg-type]
        blobs=blobs,
        cache=cache,
        clock=clock,
        segment_wait_s=1,
    )


async def test_what_is_known_plays_on_while_the_transcoder_is_away(
    library: Library, transcoding: Transcoding, clock: FakeClock
) -> None:
    before = await library.master(ASSET)
    transcoding.away = Unavailable("the transcoder is away")
    for _ in range(3):
        clock.advance(PRESENTATION_AGE_S + 1)
        assert (await library.master(ASSET)).data == before.data
    transcoding.away = None
    transcoding.plan_id = "pln_2"
    clock.advance(PRESENTATION_AGE_S + 1)
    assert b"pln_2" in (await library.master(ASSET)).data


async def test_nobody_waits_long_for_a_transcoder_that_says_nothing(
    library: Library, transcoding: Transcoding, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    before = await library.master(ASSET)
    clock.advance(PRESENTATION_AGE_S + 1)
    transcoding.silent = asyncio.Event()
    async with asyncio.timeout(5):
        assert [(await library.master(ASSET)).data for _ in range(3)] == [before.data] * 3
    assert transcoding.asked == 2, "one look at a time"
    transcoding.plan_id = "pln_2"
    transcoding.silent.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(PRESENTATION_AGE_S + 1)
    assert b"pln_2" in (await library.master(ASSET)).data


async def test_what_is_gone_or_made_anew_does_not_play_on(
    library: Library, transcoding: Transcoding, clock: FakeClock
) -> None:
    await library.master(ASSET)
    transcoding.away = NotFound("There is no such film.")
    clock.advance(PRESENTATION_AGE_S + 1)
    with pytest.raises(NotFound):
        await library.master(ASSET)
    transcoding.away = Unavailable("the transcoder is away")
    await library.media_replaced(MediaReplaced(asset_id=ASSET))
    with pytest.raises(Unavailable):
        await library.master(ASSET)
