"""Segments out of the uploaded bytes: an index is loaded once, by nobody's favour, and no film waits for another's."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.transcoder import Presentation, RenditionPlan, SourcePlan
from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import Unavailable
from streamgate.packaging import indexes
from streamgate.packaging.cmaf import ALIKE, media_head
from streamgate.packaging.indexes import READ_AT_ONCE, divided
from streamgate.packaging.segments import ROW, StoredTrack, stored
from streamgate.plugins.streaming.passthrough import Passthrough
from tests.support.indexes import put

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
        await put(store, divided(f"{name}/index", blob))
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
    store.held["a/index/front"] = asyncio.Event()
    waiting = [asyncio.create_task(passthrough.segment(*film("a"), 0)) for _ in range(20)]
    async with asyncio.timeout(5):
        await passthrough.segment(*film("b"), 0)
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    store.held["a/index/front"].set()
    made = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(made[0], asyncio.CancelledError)
    assert set(made[1:]) == {HEAD + SOURCE[5:15] + SOURCE[100:120]}
    assert (store.read_count["a/index/front"], store.read_count["a/index/0"]) == (1, 1)


async def test_what_is_at_hand_is_the_same_segment_made_without_waiting(store: Slow) -> None:
    passthrough = Passthrough(store)
    assert passthrough.at_hand(*film("a"), 0) is None  # nothing of its index is in memory yet
    made = await passthrough.segment(*film("a"), 0)
    reads = store.read_count.copy()
    assert passthrough.at_hand(*film("a"), 0) == made
    assert passthrough.at_hand(*film("a"), 1) is None
    await store.delete("source/0")
    assert passthrough.at_hand(*film("a"), 0) is None
    assert store.read_count == reads


async def test_ranges_that_are_far_apart_are_read_one_by_one_and_parts_are_not_mixed_up(store: Slow) -> None:
    far = 300_000
    source = SOURCE + bytes(far) + SOURCE[::-1]
    record = struct.pack(">2I", 10, 20) + struct.pack("<2I", 0, far)
    row = ROW.pack(0, 7, 2000, len(record), ALIKE, 1, 2, 2, 30)
    await put(store, divided("a/index", stored(len(source), [StoredTrack(0, row, [record])])))
    made = media_head(1, 7, 2, struct.pack(">2I", 10, 20), 30, form=ALIKE, duration=1)
    made += source[2000:2010] + source[2000 + far : 2020 + far]
    for cut, at_hand in ((len(source), made), (2000, made), (2001, None), (2020 + far, made), (2015 + far, None)):
        await store.put("source/0", source[:cut])
        await store.put("source/1", source[cut:])
        lengths = {"source/0": cut, "source/1": len(source) - cut}
        parts = tuple(SourcePart(key=key, length=length) for key, length in lengths.items() if length)
        presentation, rendition = film("a")
        presentation = replace(presentation, source=SourcePlan(index_key="a/index", parts=parts))
        passthrough = Passthrough(store)
        assert await passthrough.segment(presentation, rendition, 0) == made
        assert passthrough.at_hand(presentation, rendition, 0) == at_hand


async def test_an_index_that_could_not_be_read_is_read_again(store: Slow) -> None:
    passthrough = Passthrough(store)
    await store.delete("a/index/front")
    with pytest.raises(Unavailable):
        await passthrough.segment(*film("a"), 0)
    await store.put("a/index/front", await store.read("b/index/front"))
    assert (await passthrough.segment(*film("a"), 0)).startswith(HEAD)


async def test_a_segment_waits_for_the_piece_that_tells_of_it_and_keeps_no_other_film_waiting(store: Slow) -> None:
    passthrough, piece = Passthrough(store), await store.read("a/index/0")
    await store.delete("a/index/0")
    waiting = [asyncio.create_task(passthrough.segment(*film("a"), 0)) for _ in range(2 * READ_AT_ONCE)]
    while store.read_count["a/index/0"] < 3:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        await passthrough.segment(*film("b"), 0)
    assert not any(task.done() for task in waiting)
    await store.put("a/index/0", piece)
    assert {made.startswith(HEAD) for made in await asyncio.gather(*waiting)} == {True}


async def test_a_piece_that_does_not_come_is_a_503_that_says_so_and_one_that_is_damaged_is_another(
    store: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "PATIENCE_S", 0.0)
    passthrough, piece = Passthrough(store), await store.read("a/index/0")
    await store.delete("a/index/0")
    with pytest.raises(Unavailable, match="not there yet") as missing:
        await passthrough.segment(*film("a"), 0)
    assert missing.value.retry_after == 1
    await store.put("a/index/0", piece[:-1])
    with pytest.raises(Unavailable, match="index could not be read"):
        await passthrough.segment(*film("a"), 0)
    await store.put("a/index/0", piece)
    assert (await passthrough.segment(*film("a"), 0)).startswith(HEAD)
