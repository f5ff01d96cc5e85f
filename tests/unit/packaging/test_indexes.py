"""An index as objects: what a film begins to play with is stored first, and together they are the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.domain.errors import NotFound
from streamgate.packaging import indexes
from streamgate.packaging.indexes import OPENING, PIECE, Indexes, PieceMissing, divided
from streamgate.packaging.segments import StoredIndex
from tests.support.indexes import SOURCE_SIZE, keys, made_up

SEGMENTS, TRACKS = 1000, 3
LONG = made_up(SEGMENTS, samples=150, tracks=TRACKS)


def test_the_objects_of_an_index_are_it(tmp_path: Path) -> None:
    for index in (made_up(), made_up(0), LONG):
        parts = divided("key", index)
        found = dict(parts.opening()) | dict(parts.rest())
        assert len(found) == parts.pieces + 1
        assert b"".join([found["key/front"], *(found[f"key/{number}"] for number in range(parts.pieces))]) == index
        assert max(len(piece) for key, piece in found.items() if key != "key/front") <= PIECE if parts.pieces else True
    assert len(divided("key", LONG).first) < divided("key", LONG).pieces
    assert list(divided("key", made_up()).rest()) == []


async def test_with_its_opening_every_track_of_a_film_begins_to_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "PATIENCE_S", 0.0)
    blobs, parts = LocalBlobStore(tmp_path), divided("key", LONG)
    whole, reading = StoredIndex.load(LONG, SOURCE_SIZE), Indexes(blobs)
    with pytest.raises(NotFound):
        await reading.layout("key", SOURCE_SIZE, 0, 0)
    for key, data in parts.opening():
        await blobs.put(key, data)
    for track in range(TRACKS):
        for number in range(OPENING):
            assert await reading.layout("key", SOURCE_SIZE, track, number) == whole.segment(track, number)
        with pytest.raises(PieceMissing):
            await reading.layout("key", SOURCE_SIZE, track, SEGMENTS // 2)
    for key, data in parts.rest():
        await blobs.put(key, data)
    for track in range(TRACKS):
        for number in range(SEGMENTS):
            assert await reading.layout("key", SOURCE_SIZE, track, number) == whole.segment(track, number)
        with pytest.raises(LookupError):
            await reading.layout("key", SOURCE_SIZE, track, SEGMENTS)


@pytest.mark.parametrize("front", [b"", b"SGINDEX1", LONG[:40]])
async def test_a_front_that_is_none_is_an_error(tmp_path: Path, front: bytes) -> None:
    blobs = LocalBlobStore(tmp_path)
    await blobs.put("key/front", front)
    with pytest.raises(ValueError, match="index"):
        await Indexes(blobs).layout("key", SOURCE_SIZE, 0, 0)


def test_where_tracks_claim_to_begin_is_not_believed() -> None:
    """A child's words: wherever a track's rows point, what is stored are pieces that there are."""
    front = StoredIndex.front_length(LONG)
    for at in range(0, min(front, 400), 4):
        for value in (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"):
            crafted = LONG[:at] + value + LONG[at + 4 :]
            try:
                parts = divided("key", crafted)
            except ValueError:
                continue
            assert parts.first <= set(range(parts.pieces))
            assert len(keys(parts)) == parts.pieces + 1
