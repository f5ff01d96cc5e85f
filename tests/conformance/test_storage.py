"""The law of BlobStore, asked of every adapter."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamgate.adapters import storage_s3
from streamgate.adapters.storage_local import MOST_AT_ONCE, LocalBlobStore
from streamgate.adapters.storage_s3 import Bucket, S3BlobStore
from streamgate.domain.errors import Conflict, InsufficientStorage, NotFound
from streamgate.ports.storage import BlobRange, BlobStore
from tests.support.proxy import proxy
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, ObjectService, seaweed


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectService]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as service:
        yield service


@pytest.fixture(params=["local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "local":
        yield LocalBlobStore(tmp_path / "objects")
        return
    service = request.getfixturevalue("service")
    bucket = Bucket(service.endpoint, f"b{secrets.token_hex(8)}", ACCESS_KEY, SECRET_KEY, create=True)
    async with S3BlobStore(bucket, tmp_path) as opened:
        yield opened


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def failing(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise ConnectionError("the sender went away")


async def joined(data: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in data])


async def test_an_object_is_read_back_whole_and_by_range(store: BlobStore) -> None:
    content = os.urandom(3_000_000)
    info = await store.put("a/b/c.bin", pieces(content[:1], content[1:2_000_000], content[2_000_000:]))
    assert (info.key, info.length) == ("a/b/c.bin", len(content))
    assert await store.read("a/b/c.bin") == content
    assert await joined(store.open("a/b/c.bin", 5, 2_500_000)) == content[5:2_500_005]
    assert await store.read("a/b/c.bin", len(content), 0) == b""
    sizes = [len(piece) async for piece in store.open("a/b/c.bin")]
    assert max(sizes) <= 1 << 20
    assert await store.stat("a/b/c.bin") == info


async def test_a_working_store_is_healthy(store: BlobStore) -> None:
    assert await store.healthy()


async def test_what_is_not_there_is_not_found(store: BlobStore) -> None:
    assert await store.stat("nothing") is None
    with pytest.raises(NotFound):
        await store.read("nothing")
    with pytest.raises(NotFound):
        await joined(store.open("nothing"))
    await store.delete("nothing")
    assert await store.delete_prefix("nothing/") == 0
    await store.put("folder/object", b"x")
    assert await store.stat("folder") is None


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (5, None), (0, 5), (3, 2), (0, -1)])
async def test_a_range_outside_the_object_is_refused(store: BlobStore, offset: int, length: int | None) -> None:
    await store.put("k", b"1234")
    with pytest.raises(ValueError, match="range"):
        await store.read("k", offset, length)
    with pytest.raises(ValueError, match="range"):
        await joined(store.open("k", offset, length))


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a b", "ä", "~partial/x", "a" * 513]
)
async def test_a_key_that_breaks_the_law_is_refused(store: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, b"x")
    with pytest.raises(ValueError, match="not a key"):
        await store.read(key)


async def test_a_failed_put_shows_nothing_and_keeps_the_old_object(store: BlobStore) -> None:
    with pytest.raises(ConnectionError):
        await store.put("k", failing(b"half"))
    assert await store.stat("k") is None
    await store.put("k", b"old")
    with pytest.raises(ConnectionError):
        await store.put("k", failing(b"new"))
    assert await store.read("k") == b"old"
    assert [info.key async for info in store.list("")] == ["k"]


async def test_a_second_put_replaces_the_whole(store: BlobStore) -> None:
    first = await store.put("k", b"a longer object")
    second = await store.put("k", b"short")
    assert await store.read("k") == b"short"
    assert first.etag != second.etag


async def test_a_reader_sees_the_old_bytes_or_the_new(store: BlobStore) -> None:
    old, new = b"o" * 3_000_000, b"n" * 3_000_000
    await store.put("k", old)
    reading = store.open("k")
    begin = await anext(aiter(reading))
    await store.put("k", new)
    assert begin + await joined(reading) == old
    assert await store.read("k") == new


async def test_objects_are_listed_in_the_order_of_their_keys(store: BlobStore) -> None:
    keys = ["a", "a-b", "a/b", "a/b.c", "a/b/c", "a0", "b/x"]
    for key in ("a-b", "b/x", "a/b.c", "a/b/c", "a0"):
        await store.put(key, b"x")
    expected = [key for key in sorted(keys) if key in {"a-b", "b/x", "a/b.c", "a/b/c", "a0"}]
    assert [info.key async for info in store.list("")] == expected
    assert [info.key async for info in store.list("a/")] == ["a/b.c", "a/b/c"]
    assert [info.key async for info in store.list("a/b")] == ["a/b.c", "a/b/c"]
    assert [info.key async for info in store.list("zz/")] == []


async def test_a_prefix_is_deleted_and_nothing_beside_it(store: BlobStore) -> None:
    for key in ("p/a", "p/q/b", "p2/c", "p.d"):
        await store.put(key, b"x")
    assert await store.delete_prefix("p/") == 2
    assert [info.key async for info in store.list("")] == ["p.d", "p2/c"]
    with pytest.raises(ValueError, match="prefix"):
        await store.delete_prefix("p2")


async def test_parts_are_materialised_as_one_file(store: BlobStore) -> None:
    await store.put("one", b"0123456789")
    await store.put("two", b"abcdef")
    async with store.materialise([BlobRange("one", 0, 10)]) as path:
        assert path.read_bytes() == b"0123456789"
    async with store.materialise([BlobRange("one", 2, 3), BlobRange("two", 0, 6)]) as path:
        assert path.read_bytes() == b"234abcdef"
    assert not path.exists()
    assert await store.read("one") == b"0123456789"


async def test_appending_cuts_to_the_offset_and_keeps_what_came(store: BlobStore) -> None:
    if not store.can_append:
        with pytest.raises(NotImplementedError):
            await store.append("k", 0, pieces(b"x"))
        return
    assert await store.append("k", 0, pieces(b"hello ", b"world")) == 11
    assert await store.append("k", 5, pieces(b"!")) == 6
    assert await store.read("k") == b"hello!"
    with pytest.raises(Conflict):
        await store.append("k", 7, pieces(b"x"))
    with pytest.raises(ConnectionError):
        await store.append("k", 6, failing(b" there"))
    assert await store.read("k") == b"hello! there"
    assert await store.append("k", 0, pieces()) == 0


async def test_cancelling_an_append_keeps_what_came(store: BlobStore) -> None:
    if not store.can_append:
        return
    arrived = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        arrived.set()
        await asyncio.sleep(60)

    writing = asyncio.create_task(store.append("k", 0, slow()))
    await arrived.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    info = await store.stat("k")
    assert info is not None
    assert info.length == 2_000_000


async def test_what_is_at_hand_is_exactly_those_ranges(store: BlobStore) -> None:
    content = os.urandom(200_000)
    await store.put("a/b", content)
    for base, starts, ends in ((0, (0,), (200_000,)), (7, (0, 150_000, 10), (5, 150_100, 11)), (199_999, (0,), (1,))):
        found = store.at_hand("a/b", base, starts, ends)
        assert (found is not None) == store.is_local
        if found is not None:
            assert found == b"".join(content[base + s : base + e] for s, e in zip(starts, ends, strict=True))
    for base, starts, ends in ((0, (0,), (200_001,)), (-1, (0,), (5,)), (0, (200_000,), (200_001,)), (0, (9,), (9,))):
        assert store.at_hand("a/b", base, starts, ends) is None
    assert store.at_hand("a/c", 0, (0,), (1,)) is None
    assert store.at_hand("a", 0, (0,), (1,)) is None
    if store.is_local:
        with pytest.raises(ValueError, match="not a key"):
            store.at_hand("../a", 0, (0,), (1,))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path) -> None:
    store = LocalBlobStore(small_disk / "objects")
    await store.put("kept", b"x" * 1_000_000)
    with pytest.raises(InsufficientStorage):
        await store.put("k", b"x" * 3_000_000)
    with pytest.raises(InsufficientStorage):
        await store.append("grown", 0, pieces(*[b"x" * 500_000] * 8))
    assert await store.stat("k") is None
    assert await store.read("kept") == b"x" * 1_000_000
    await store.delete("grown")
    assert await store.append("grown", 0, pieces(b"y" * 500_000)) == 500_000


async def test_what_is_in_memory_waits_for_no_thread_and_what_is_not_is_read_all_the_same(tmp_path: Path) -> None:
    store, content = LocalBlobStore(tmp_path / "objects"), os.urandom(MOST_AT_ONCE + 1)
    await store.put("a", content)
    go_on = threading.Event()
    busy = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(busy)
    busy.submit(go_on.wait)
    try:
        for offset, length in ((0, 1), (5, 1 << 20), (len(content) - 1000, None)):
            async with asyncio.timeout(5):
                assert await store.read("a", offset, length) == content[offset:][:length]
        waiting = asyncio.ensure_future(store.read("a"))  # too long to be copied meanwhile
        await asyncio.sleep(0.05)
        assert not waiting.done()
    finally:
        go_on.set()
    assert await waiting == content
    file = os.open(tmp_path / "objects" / "a", os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    assert await store.read("a", 7, 1 << 20) == content[7:][: 1 << 20]


async def test_a_folder_that_is_gone_is_not_healthy(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "objects")
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    assert not await store.healthy()


async def test_what_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    store = LocalBlobStore(root)
    await store.put("k", b"x")
    (root / "~partial" / "left").write_bytes(b"half")
    again = LocalBlobStore(root)
    assert not (root / "~partial" / "left").exists()
    assert await again.read("k") == b"x"


async def test_an_object_is_stored_though_the_line_died_without_saying_so(
    service: ObjectService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that is taken up again is dead; the next one is not."""
    monkeypatch.setattr(storage_s3, "SILENT_S", 2)
    with proxy(service.port) as line:
        endpoint = f"http://127.0.0.1:{line.port}"
        bucket = Bucket(endpoint, f"b{secrets.token_hex(8)}", ACCESS_KEY, SECRET_KEY, create=True)
        async with S3BlobStore(bucket, tmp_path) as store:
            line.lose()
            putting = asyncio.create_task(store.put("a", b"film"))
            await asyncio.sleep(0.1)
            line.mend()
            async with asyncio.timeout(60):
                assert (await putting).length == 4
