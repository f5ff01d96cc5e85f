"""What a plan brings along is stored before the plan counts, and what came to nothing does not stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.upload import SourcePart
from streamgate.media.model import MediaPlan, remuxed_file
from streamgate.packaging.indexes import Divided, divided
from streamgate.plugins.transcoder import planned, standing
from tests.support.indexes import keys, made_up, read
from tests.unit.transcoder.test_standing import film

PARTS = (SourcePart("uploads/upl_1/1", 100),)


INDEX = made_up()


def _index(blobs: LocalBlobStore, plan_id: str) -> planned.IndexObjects:
    return planned.IndexObjects(blobs, "ast_1", plan_id)


def _objects(plan_id: str, index: bytes = INDEX) -> Divided:
    return divided(standing.index_key("ast_1", plan_id), index)


async def _kept(blobs: LocalBlobStore, plan_id: str, plan: MediaPlan, folder: Path) -> MediaPlan:
    return await planned.kept(blobs, "ast_1", plan_id, plan, PARTS, folder, _index(blobs, plan_id))


async def _keys(blobs: LocalBlobStore) -> set[str]:
    return {info.key async for info in blobs.list("assets/")}


async def test_an_index_is_of_the_upload_or_of_what_was_written_out(tmp_path: Path) -> None:
    blobs, room = LocalBlobStore(tmp_path / "objects"), tmp_path / "room"
    room.mkdir()
    pieces = [bytes([number]) * (3 << 20) for number in range(2)]
    for number, piece in enumerate(pieces):
        (room / remuxed_file(number)).write_bytes(piece)
    plan = film().plan
    assert plan is not None
    indexed = replace(plan, index=INDEX)
    plain = await _kept(blobs, "pln_1", plan, room)
    uploaded = await _kept(blobs, "pln_2", indexed, room)
    written = await _kept(blobs, "pln_3", replace(indexed, remuxed=(3 << 20, 3 << 20)), room)
    assert (plain.parts, uploaded.parts) == ((), PARTS)
    assert [part.length for part in written.parts] == [3 << 20] * 2
    assert [await blobs.read(part.key) for part in written.parts] == pieces
    assert uploaded.index == written.index == b""
    assert await read(blobs, _objects("pln_3")) == INDEX


async def test_what_killed_attempts_wrote_out_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "objects")
    mine, lost = (standing.remuxed_key("ast_1", plan, 0) for plan in ("pln_1", "pln_2"))
    others = {standing.remuxed_key("ast_2", "pln_2", 0), standing.index_key("ast_1", "pln_2")}
    for key in (mine, lost, *others):
        await blobs.put(key, b"bytes")
    await planned.forget_others(blobs, "ast_1", ["pln_1"])
    assert await _keys(blobs) == {mine, *others}
    await planned.forget_others(blobs, "ast_1", ())
    assert await _keys(blobs) == others


async def test_an_index_that_was_begun_counts_only_if_it_is_the_plan_s(tmp_path: Path) -> None:
    blobs, own = LocalBlobStore(tmp_path / "objects"), made_up(2)
    for early, counts in ((INDEX, INDEX), (made_up(3), own)):
        index = _index(blobs, "pln_1")
        index.begin(early)
        await index.store(counts)
        await index.drop()
        assert await read(blobs, _objects("pln_1", counts)) == counts
    index = _index(blobs, "pln_2")
    index.begin(made_up(4))
    await index.drop()
    assert await _keys(blobs) == keys(_objects("pln_1", own))


async def test_an_index_that_is_none_is_not_stored(tmp_path: Path) -> None:
    blobs = LocalBlobStore(tmp_path / "objects")
    for none in (b"", b"index", INDEX[:-1], INDEX + b"x"):
        with pytest.raises(ValueError, match="index"):
            _index(blobs, "pln_1").begin(none)
    assert await _keys(blobs) == set()
