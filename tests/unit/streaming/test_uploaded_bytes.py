"""Segments out of the uploaded bytes: an index is loaded once, by nobody's favour, and no film waits for another's."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from pathlib import Path

import pytest

from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.transcoder import Presentation, RenditionPlan, SourcePlan
from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import Unavailable
from streamgate.packaging.cmaf import ALIKE, media_head
from streamgate.packaging.segments import ROW, StoredTrack, stored
from streamgate.plugins.streaming.passthrough import Passthrough

SOURCE = bytes(range(256)) * 8
HEAD = media_head(1, 7, 2, struct.pack(">2I", 10, 20), 30, form=ALIKE, duration=1)


class Slow(LocalBlobStore):
    """A store that counts reads of objects and holds back those it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read_count: Counter[str] = Counter()
        self.held: dict[str, asyncio.Event] = {}

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self.read_count[key] += 1
        if key in self.held:
            await self.held[key].wait()
        return await super().read(key, offset, length)


@pytest.fixture
async def store(tmp_path: Path) -> Slow:
    store = Slow(tmp_path / "objects")
    await store.put("source/0", SOURCE)
    record = struct.pack(">2I", 10, 20) + struct.pack("<2I", 0, 95)
    row = ROW.pack(0, 7, 5, len(record), ALIKE, 1, 2, 2, 30)
    blob = stored(len(SOURCE), [StoredTrack(0, row, [record])])
    for name in ("a", "b"):
        await store.put(f"{name}/index", blob)
    return store


def film(name: str) -> tuple[Presentation, RenditionPlan]:
    rendition = RenditionPlan(
        name="source",
        kind="video",
        codecs="avc1.42c01f",
        timescale=1,
        boundaries=(0, 4),
        bandwidth=1,
        init_key=f"{name}/init",
        passthrough=0,
    )
    source = SourcePlan(index_key=f"{name}/index", parts=(SourcePart(key="source/0", length=len(SOURCE)),))
    return Presentation(asset_id=name, plan_id=name, duration=4, renditions=(rendition,), source=source), rendition


async def test_a_segment_is_a_head_and_bytes_of_the_upload(store: Slow) -> None:
    made = await Passthrough(store).segment(*film("a"), 0)
    assert made == HEAD + SOURCE[5:15] + SOURCE[100:120]


async def test_many_who_come_at_once_load_an_index_once_and_no_other_film_waits(store: Slow) -> None:
    passthrough = Passthrough(store)
    store.held["a/index"] = asyncio.Event()
    waiting = [asyncio.create_task(passthrough.segment(*film("a"), 0)) for _ in range(20)]
    async with asyncio.timeout(5):
        await passthrough.segment(*film("b"), 0)
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    store.held["a/index"].set()
    made = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(made[0], asyncio.CancelledError)
    assert set(made[1:]) == {HEAD + SOURCE[5:15] + SOURCE[100:120]}
    assert store.read_count["a/index"] == 3  # its header, its front, and what the segment needs of the rest


async def test_an_index_that_could_not_be_read_is_read_again(store: Slow) -> None:
    passthrough = Passthrough(store)
    await store.delete("a/index")
    with pytest.raises(Unavailable):
        await passthrough.segment(*film("a"), 0)
    await store.put("a/index", await store.read("b/index"))
    assert (await passthrough.segment(*film("a"), 0)).startswith(HEAD)
