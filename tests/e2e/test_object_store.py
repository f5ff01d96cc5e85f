"""The same product with its objects in a real S3 service: uploads in parts, encoding by range, redirected delivery."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.films import by_ffmpeg, film, frame_count, moving
from tests.support.product import TUS, play, probe, problem, upload, wait_final, wait_playable
from tests.support.seaweed import ObjectService, seaweed
from tests.support.server import Server, serving, wait_for

# One process on a part of what nine use.
pytestmark = [pytest.mark.timeout(180), pytest.mark.embedded]
OFFSETS = TUS | {"content-type": "application/offset+octet-stream"}
SMALL = {"transcoder.rungs": [240], "transcoder.preset": "ultrafast", "transcoder.passthrough": False}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectService]:
    with seaweed(tmp_path_factory.mktemp("objects")) as service:
        yield service


@pytest.fixture(scope="module")
def direct(objects: ObjectService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("direct") / "data", SMALL | objects.settings("direct")) as server:
        yield server


@pytest.fixture(scope="module")
def redirecting(objects: ObjectService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = SMALL | objects.settings("redirecting") | {"delivery.mode": "redirect", "delivery.redirect_s": 2}
    with serving(tmp_path_factory.mktemp("redirecting") / "data", settings) as server:
        yield server


def announced(http: httpx.Client, length: int) -> tuple[str, str]:
    """The address of a new upload, and its film."""
    made = http.post("/api/v1/uploads", headers=TUS | {"upload-length": str(length)})
    return made.headers["location"], made.headers["streamgate-asset"]


def test_a_film_goes_in_and_plays(direct: Server, tmp_path: Path) -> None:
    source = film(tmp_path, seconds=9, width=640, height=360)
    asset_id = upload(direct, source, title="In a bucket", visibility="public")
    assert wait_final(direct, asset_id)["state"] == "ready"
    started = play(direct, asset_id, None).json()
    count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
    assert int(probe(started["hls_url"], *count)["streams"][0]["nb_read_frames"]) == frame_count(source)
    assert httpx.get(started["storyboard_url"].replace(".vtt", "/0.jpg")).content.startswith(b"\xff\xd8")
    assert not list((direct.data_dir / "objects").glob("**/*")) if (direct.data_dir / "objects").exists() else True
    with direct.admin() as http:
        assert http.get(f"/api/v1/assets/{asset_id}/poster.jpg").headers["content-type"] == "image/jpeg"


def test_pieces_of_any_size_become_the_same_film(direct: Server, tmp_path: Path) -> None:
    """Twenty megabytes in pieces from one byte to nine megabytes, with a lost connection between: nothing lost or doubled."""
    source = film(tmp_path, seconds=3)
    data = source.read_bytes() + random.Random(1).randbytes(20 << 20)
    chance = random.Random(2)
    with direct.admin() as http:
        url, asset_id = announced(http, len(data))
        at = 0
        while at < len(data):
            size = min(len(data) - at, chance.choice([1, 1000, 70_000, 3 << 20, 9 << 20]))
            answer = http.patch(url, headers=OFFSETS | {"upload-offset": str(at)}, content=data[at : at + size])
            assert answer.status_code == 204, answer.text
            at += size
            assert int(answer.headers["upload-offset"]) == at
            if chance.random() < 0.3 and at < len(data):
                wrong = http.patch(url, headers=OFFSETS | {"upload-offset": str(at + 1)}, content=b"x")
                assert problem(wrong) == (409, "offset_conflict")
    with direct.admin() as http:
        assert wait_final(direct, asset_id)["state"] == "ready"
        stored = http.get(f"/api/v1/assets/{asset_id}").json()
    assert stored["duration"] == pytest.approx(3, abs=0.2)
    assert hashlib.sha256(joined(direct, asset_id)).hexdigest() == hashlib.sha256(data).hexdigest()


def joined(server: Server, asset_id: str) -> bytes:
    """The source of a film as its parts hold it, read from the bucket."""
    import asyncio
    import sqlite3

    from streamgate.adapters.storage_s3 import Bucket, S3BlobStore

    with sqlite3.connect(server.data_dir / "streamgate.db") as database:
        statement = "SELECT key, length FROM upload_parts WHERE holder = ? ORDER BY position"
        parts = database.execute(statement, (asset_id,)).fetchall()
    # Small ones are joined with what follows, so that there are hardly more than the size asks for.
    assert len(parts) <= 6
    told = server.settings["storage.s3"]

    async def read() -> bytes:
        bucket = Bucket(told["endpoint"], told["bucket"], told["access_key"], told["secret_key"])
        async with S3BlobStore(bucket, server.data_dir) as store:
            return b"".join([await store.read(key, 0, length) for key, length in parts])

    return asyncio.run(read())


def test_a_wrong_checksum_keeps_nothing_and_a_cut_line_keeps_what_came(direct: Server) -> None:
    data = random.Random(3).randbytes(10 << 20)
    with direct.admin() as http:
        url, _ = announced(http, len(data) + 1)
        wrong = base64.b64encode(hashlib.sha1(b"other").digest()).decode()
        headers = OFFSETS | {"upload-offset": "0", "upload-checksum": f"sha1 {wrong}"}
        assert problem(http.patch(url, headers=headers, content=data)) == (460, "checksum_mismatch")
        assert http.head(url, headers=TUS).headers["upload-offset"] == "0"
        right = base64.b64encode(hashlib.sha1(data[:100]).digest()).decode()
        headers = OFFSETS | {"upload-offset": "0", "upload-checksum": f"sha1 {right}"}
        assert http.patch(url, headers=headers, content=data[:100]).status_code == 204

        def breaking() -> Iterator[bytes]:
            yield data[100 : 9 << 20]
            time.sleep(0.3)
            raise ConnectionError

        headers = OFFSETS | {"upload-offset": "100", "content-length": str(len(data) - 100)}
        with pytest.raises(ConnectionError):
            http.patch(url, headers=headers, content=breaking())
        assert int(http.head(url, headers=TUS).headers["upload-offset"]) == 9 << 20


def test_segments_are_fetched_from_the_store_by_an_address_that_ends(redirecting: Server, tmp_path: Path) -> None:
    asset_id = upload(redirecting, film(tmp_path, seconds=9), title="Elsewhere", visibility="public")
    assert wait_final(redirecting, asset_id)["state"] == "ready"
    started = play(redirecting, asset_id, None).json()
    assert started["max_staleness_s"] == 30 + 2
    base = started["hls_url"].removesuffix("master.m3u8")
    with httpx.Client() as http:
        sent = http.get(f"{base}240p/1.m4s")
        assert (sent.status_code, sent.headers["cache-control"]) == (302, "no-store")
        assert "secret" not in sent.headers["location"]
        assert redirecting.admin_key not in sent.headers["location"]
        there = http.get(sent.headers["location"])
        assert there.status_code == 200
        assert len(there.content) == int(http.head(f"{base}240p/1.m4s").headers["content-length"])
        assert {http.get(f"{base}240p/1.m4s").status_code for _ in range(3)} == {302}
        assert http.get(f"{base}240p/init.mp4").status_code == 302
        for written in ("master.m3u8", "240p/playlist.m3u8", "manifest.mpd", "storyboard.vtt"):
            assert http.get(base + written).status_code == 200
        time.sleep(3)
        assert http.get(sent.headers["location"]).status_code == 403
        assert http.get(f"{base}240p/99.m4s").status_code == 404
        assert http.get(re.sub(r"/p/.", "/p/x", f"{base}240p/1.m4s")).status_code == 404
    frames = probe(
        started["hls_url"], "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames"
    )
    assert int(frames["streams"][0]["nb_read_frames"]) == 270
    with redirecting.admin() as http:
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
    wait_for(lambda: httpx.get(f"{base}240p/1.m4s").status_code in {403, 404}, 5)


def test_a_deleted_film_leaves_no_object(direct: Server, tmp_path: Path) -> None:
    import asyncio

    from streamgate.adapters.storage_s3 import Bucket, S3BlobStore

    told = direct.settings["storage.s3"]

    async def keys() -> list[str]:
        bucket = Bucket(told["endpoint"], told["bucket"], told["access_key"], told["secret_key"])
        async with S3BlobStore(bucket, direct.data_dir) as store:
            return [info.key async for info in store.list("")]

    before = asyncio.run(keys())
    asset_id = upload(direct, film(tmp_path, seconds=4), title="Gone soon")
    assert wait_final(direct, asset_id)["state"] == "ready"
    assert len(asyncio.run(keys())) > len(before)
    with direct.admin() as http:
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
    wait_for(lambda: set(asyncio.run(keys())) <= set(before), 20)


@pytest.fixture(scope="module")
def passing(objects: ObjectService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = SMALL | objects.settings("passthrough") | {"transcoder.passthrough": True}
    with serving(tmp_path_factory.mktemp("passing") / "data", settings) as server:
        yield server


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of several parts."""
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "100", "-b:v", "12M", "-pix_fmt", "yuv420p")
    wild = ("-vf", "noise=alls=60:allf=t", *coded, "-movflags", "+faststart")
    return by_ffmpeg(tmp_path_factory.mktemp("parts"), "noise.mp4", *moving(12, "640x360"), *wild)


def test_uploaded_bytes_are_served_by_ranges_over_several_parts(passing: Server, noise: Path) -> None:
    server, data = passing, noise.read_bytes()
    piece = 6 << 20
    assert len(data) > piece
    with server.admin() as http:
        url, asset_id = announced(http, len(data))
        for at in range(0, len(data), piece):
            if at >= 2 * piece:
                early = wait_playable(server, asset_id)
                assert early["state"] == "uploading"
                base = play(server, asset_id, server.admin_key).json()["hls_url"].removesuffix("master.m3u8")
                first = httpx.get(f"{base}source/0.m4s").raise_for_status().content
            told = OFFSETS | {"upload-offset": str(at)}
            assert http.patch(url, headers=told, content=data[at : at + piece]).status_code == 204
        wait_for(lambda: http.get(f"/api/v1/assets/{asset_id}").json()["state"] != "uploading")
        found = wait_playable(server, asset_id)
        assert found["source"]["mode"] == "passthrough"
        wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text)
        assert httpx.get(f"{base}source/0.m4s").content == first
        address = play(server, asset_id, server.admin_key).json()["hls_url"].replace("master", "source/playlist")
        count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
        assert int(probe(address, *count)["streams"][0]["nb_read_frames"]) == frame_count(noise)


@pytest.mark.parametrize("container", ["mkv", "ts"])
def test_what_is_read_through_once_is_served_from_the_store_too(
    passing: Server, noise: Path, tmp_path: Path, container: str
) -> None:
    """Matroska by ranges of the upload, a transport stream by ranges of what was written out of it."""
    source = by_ffmpeg(tmp_path, f"noise.{container}", "-i", str(noise), "-c", "copy")
    asset_id = upload(passing, source, visibility="public")
    assert wait_playable(passing, asset_id)["source"]["mode"] == "passthrough"
    address = play(passing, asset_id, None).json()["hls_url"].replace("master", "source/playlist")
    count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
    assert int(probe(address, *count)["streams"][0]["nb_read_frames"]) == frame_count(source)
