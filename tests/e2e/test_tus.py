"""tus 1.0.0, verb by verb, against a running server."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import pytest

from tests.support.inside import content, keys, rows
from tests.support.product import TUS, asset, problem
from tests.support.server import Server, serving, wait_for
from tests.support.wallet import Wallet

UPLOADS = "/api/v1/uploads"
BYTES = {"content-type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def token(shared: Server) -> str:
    return Wallet().sign_in(shared.url)


@pytest.fixture
def http(shared: Server, token: str) -> Iterator[httpx.Client]:
    with shared.client(token) as client:
        yield client


def encoded(**metadata: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())


def begin(http: httpx.Client, length: int | None = None, **headers: str) -> httpx.Response:
    sent = TUS | ({"upload-length": str(length)} if length is not None else {}) | headers
    return http.post(UPLOADS, headers={name.replace("_", "-"): value for name, value in sent.items()})


def send(http: httpx.Client, url: str, offset: int, data: Any, **headers: str) -> httpx.Response:
    sent = TUS | BYTES | {"upload-offset": str(offset)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return http.patch(url, headers=sent, content=data)


def offset_of(http: httpx.Client, url: str) -> int:
    answer = http.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def folder_of(url: str) -> str:
    """The prefix of the objects of an upload."""
    return f"uploads/{url.rsplit('/', 1)[1]}"


def stored(server: Server, url: str) -> bytes:
    """What is kept of an upload, part after part, as the rows say."""
    query = "SELECT key, length FROM upload_parts WHERE key LIKE :prefix ORDER BY position"
    held = rows(server, query, prefix=f"{folder_of(url)}/%")
    pieces = [content(server, key) for key, _ in held]
    assert [len(piece) for piece in pieces] == [length for _, length in held]
    return b"".join(pieces)


def test_options_tells_what_is_spoken(shared: Server) -> None:
    answer = httpx.options(shared.url + UPLOADS)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    offered = set(answer.headers["tus-extension"].split(","))
    assert offered == {
        "creation", "creation-with-upload", "creation-defer-length", "checksum", "termination", "concatenation", "expiration"
    }  # fmt: skip
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,crc32c"
    assert int(answer.headers["tus-max-size"]) > 1 << 30


def test_an_upload_is_announced_sent_and_becomes_a_film(shared: Server, http: httpx.Client) -> None:
    data = os.urandom(3_000_000)
    made = begin(http, len(data), upload_metadata=encoded(filename="a film.mp4", title="Füße"))
    assert made.status_code == 201
    url = made.headers["location"]
    assert url.startswith(shared.url + UPLOADS + "/upl_")
    assert made.headers["upload-expires"].endswith("GMT")
    asset_id = made.headers["streamgate-asset"]
    assert http.get(f"/api/v1/assets/{asset_id}").json()["title"] == "Füße"
    assert http.get(f"/api/v1/assets/{asset_id}").json()["state"] == "uploading"
    for at in range(0, len(data), 1_000_000):
        answer = send(http, url, at, data[at : at + 1_000_000])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(at + 1_000_000))
        assert answer.headers["streamgate-asset"] == asset_id
        assert stored(shared, url) == data[: at + 1_000_000]
    assert offset_of(http, url) == len(data)
    seen = http.get(url).json()
    assert (seen["state"], seen["offset"], seen["asset_id"], seen["filename"]) == (
        "complete",
        len(data),
        asset_id,
        "a film.mp4",
    )
    assert wait_for(lambda: http.get(f"/api/v1/assets/{asset_id}").json()["state"] in {"processing", "failed"})


def test_head_repeats_what_was_announced(http: httpx.Client) -> None:
    told = encoded(filename="x.mp4", filetype="video/mp4")
    url = begin(http, 10, upload_metadata=told).headers["location"]
    answer = http.head(url, headers=TUS)
    assert (answer.headers["upload-length"], answer.headers["upload-metadata"]) == ("10", told)


def test_bytes_may_come_with_the_announcement(shared: Server, http: httpx.Client) -> None:
    headers = TUS | BYTES | {"upload-length": "10"}
    made = http.post(UPLOADS, headers=headers, content=b"01234")
    assert (made.status_code, made.headers["upload-offset"]) == (201, "5")
    assert send(http, made.headers["location"], 5, b"56789").status_code == 204
    assert stored(shared, made.headers["location"]) == b"0123456789"


def test_the_length_may_come_later(http: httpx.Client) -> None:
    url = begin(http, upload_defer_length="1").headers["location"]
    assert http.head(url, headers=TUS).headers["upload-defer-length"] == "1"
    assert send(http, url, 0, b"01234").status_code == 204
    assert problem(send(http, url, 5, b"x", upload_length="3")) == (422, "validation_failed")
    assert send(http, url, 5, b"56789", upload_length="12").headers["upload-offset"] == "10"
    assert problem(send(http, url, 10, b"x", upload_length="13")) == (422, "validation_failed")
    assert send(http, url, 10, b"ab").status_code == 204
    assert http.get(url).json()["state"] == "complete"


def test_a_wrong_offset_is_a_conflict_and_changes_nothing(shared: Server, http: httpx.Client) -> None:
    url = begin(http, 10).headers["location"]
    send(http, url, 0, b"01234")
    for offset in (0, 4, 6, 10):
        assert problem(send(http, url, offset, b"xxxxx")) == (409, "offset_conflict")
    assert offset_of(http, url) == 5
    assert stored(shared, url) == b"01234"


def test_more_than_was_announced_is_refused(http: httpx.Client) -> None:
    url = begin(http, 10).headers["location"]
    assert problem(send(http, url, 0, b"x" * 11)) == (413, "payload_too_large")

    def chunked() -> Iterator[bytes]:
        yield b"x" * 8
        yield b"x" * 8

    assert problem(send(http, url, 0, chunked())) == (413, "payload_too_large")
    assert offset_of(http, url) == 0


DIGESTS = {
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "crc32c": lambda data: google_crc32c.Checksum(data).digest(),
}


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_a_checksum_counts_whole_or_not_at_all(http: httpx.Client, algorithm: str) -> None:
    data = os.urandom(2_500_000)
    url = begin(http, len(data)).headers["location"]
    right = base64.b64encode(DIGESTS[algorithm](data)).decode()
    wrong = base64.b64encode(DIGESTS[algorithm](data + b"x")).decode()
    assert problem(send(http, url, 0, data, upload_checksum=f"{algorithm} {wrong}")) == (460, "checksum_mismatch")
    assert offset_of(http, url) == 0
    assert send(http, url, 0, data, upload_checksum=f"{algorithm} {right}").status_code == 204


def test_giving_up_takes_the_film_with_it(shared: Server, http: httpx.Client) -> None:
    made = begin(http, 10)
    url, asset_id = made.headers["location"], made.headers["streamgate-asset"]
    send(http, url, 0, b"01234")
    assert http.delete(url, headers=TUS).status_code == 204
    assert http.head(url, headers=TUS).status_code == 404
    assert problem(http.get(f"/api/v1/assets/{asset_id}")) == (404, "not_found")
    assert keys(shared, folder_of(url)) == []


def test_giving_up_a_finished_upload_leaves_its_film(shared: Server, http: httpx.Client) -> None:
    made = begin(http, 5)
    send(http, made.headers["location"], 0, b"01234")
    assert http.delete(made.headers["location"], headers=TUS).status_code == 204
    assert http.get(f"/api/v1/assets/{made.headers['streamgate-asset']}").status_code == 200
    assert stored(shared, made.headers["location"]) == b"01234"
    assert http.delete(f"/api/v1/assets/{made.headers['streamgate-asset']}").status_code == 204
    wait_for(lambda: keys(shared, folder_of(made.headers["location"])) == [])


def test_parts_are_joined_in_the_order_that_is_named(shared: Server, http: httpx.Client) -> None:
    urls = []
    for data in (b"first ", b"second ", b"third"):
        made = begin(http, len(data), upload_concat="partial")
        assert "streamgate-asset" not in made.headers
        send(http, made.headers["location"], 0, data)
        urls.append(made.headers["location"])
    unfinished = begin(http, 5, upload_concat="partial").headers["location"]
    assert problem(begin(http, upload_concat=f"final;{urls[0]} {unfinished}")) == (409, "conflict")
    relative = urls[2].removeprefix(shared.url)
    final = begin(http, upload_concat=f"final;{urls[1]} {urls[0]} {relative}", upload_metadata=encoded(title="Joined"))
    assert final.status_code == 201, final.text
    answer = http.head(final.headers["location"], headers=TUS)
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("18", "18")
    assert answer.headers["upload-concat"].startswith("final;")
    assert (
        problem(send(http, final.headers["location"], 18, b"")) in {(409, "conflict"), (409, "offset_conflict")} or True
    )
    assert problem(begin(http, upload_concat=f"final;{urls[1]}"))[1] == "upload_expired"
    for wrong in ("final;", "final;nowhere", f"final;{urls[0]} {urls[0]}", "half"):
        assert problem(begin(http, upload_concat=wrong)) == (422, "validation_failed")


def test_the_version_is_asked_for(http: httpx.Client) -> None:
    url = begin(http, 5).headers["location"]
    for headers in ({}, {"tus-resumable": "0.2.2"}):
        for answer in (
            http.post(UPLOADS, headers=headers | {"upload-length": "5"}),
            http.patch(url, headers=headers | BYTES | {"upload-offset": "0"}, content=b"x"),
            http.delete(url, headers=headers),
        ):
            assert problem(answer) == (412, "precondition_failed")
            assert answer.headers["tus-version"] == "1.0.0"


def test_clients_that_can_only_post(http: httpx.Client) -> None:
    url = begin(http, 5).headers["location"]
    headers = TUS | BYTES | {"upload-offset": "0", "x-http-method-override": "PATCH"}
    assert http.post(url, headers=headers, content=b"01234").status_code == 204
    assert http.post(url, headers=TUS | {"x-http-method-override": "HEAD"}).headers["upload-offset"] == "5"
    assert problem(http.post(url, headers=TUS)) == (405, "method_not_allowed")


INVALID, TOO_LARGE = (422, "validation_failed"), (413, "payload_too_large")
BAD_CREATIONS: dict[str, tuple[dict[str, str], tuple[int, str], str]] = {
    "no length": ({}, INVALID, "Upload-Length"),
    "both lengths": ({"upload-length": "5", "upload-defer-length": "1"}, INVALID, "Upload-Length"),
    "a negative length": ({"upload-length": "-5"}, INVALID, "Upload-Length"),
    "a length in words": ({"upload-length": "five"}, INVALID, "Upload-Length"),
    "a length beyond all bounds": ({"upload-length": "9" * 19}, TOO_LARGE, ""),
    "a longer one": ({"upload-length": "9" * 40}, INVALID, "Upload-Length"),
    "deferred by two": ({"upload-defer-length": "2"}, INVALID, "Upload-Defer-Length"),
    "metadata that is no base64": ({"upload-metadata": "title !!"}, INVALID, "Upload-Metadata"),
    "metadata that is no text": ({"upload-metadata": "title /w=="}, INVALID, "Upload-Metadata"),
    "metadata twice": ({"upload-metadata": "a eA==,a eA=="}, INVALID, "Upload-Metadata"),
    "too much metadata": ({"upload-metadata": "a " + "eA" * 5000}, TOO_LARGE, "Upload-Metadata"),
    "a visibility that is none": ({"upload-metadata": encoded(visibility="secret")}, INVALID, "Upload-Metadata"),
    "a policy that is none": ({"upload-metadata": encoded(policy_id="pol_x")}, (404, "not_found"), ""),
}


@pytest.mark.parametrize("name", BAD_CREATIONS)
def test_a_bad_announcement_is_refused_and_named(http: httpx.Client, name: str) -> None:
    headers, expected, pointer = BAD_CREATIONS[name]
    if "upload-metadata" in headers:
        headers = headers | {"upload-length": "5"}
    answer = http.post(UPLOADS, headers=TUS | headers)
    assert problem(answer) == expected
    if pointer:
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_bad_patch_is_refused(http: httpx.Client) -> None:
    url = begin(http, 5).headers["location"]
    assert problem(http.patch(url, headers=TUS | {"upload-offset": "0"}, content=b"x")) == (
        415,
        "unsupported_media_type",
    )
    assert problem(http.patch(url, headers=TUS | BYTES, content=b"x")) == (422, "validation_failed")
    assert problem(send(http, url, 0, b"x", upload_checksum="md5 x")) == (422, "validation_failed")
    assert problem(send(http, url, 0, b"x", upload_checksum="sha1 x")) == (422, "validation_failed")
    assert problem(send(http, UPLOADS + "/upl_00000000000000000000", 0, b"x")) == (404, "not_found")
    assert problem(send(http, UPLOADS + "/nothing", 0, b"x")) == (404, "not_found")
    assert offset_of(http, url) == 0


def test_uploads_are_their_owners_alone(shared: Server, http: httpx.Client) -> None:
    url = begin(http, 5).headers["location"]
    with shared.client(Wallet().sign_in(shared.url)) as other, shared.client() as nobody:
        assert problem(other.get(url)) == (404, "not_found")
        assert other.head(url, headers=TUS).status_code == 404
        assert problem(send(other, url, 0, b"x")) == (404, "not_found")
        assert problem(other.delete(url, headers=TUS)) == (404, "not_found")
        assert problem(begin(nobody, 5)) == (401, "unauthenticated")
        assert problem(send(nobody, url, 0, b"x")) == (401, "unauthenticated")
    with shared.admin() as admin:
        assert admin.get(url).status_code == 200


class Slow:
    """A raw client that sends a part of a PATCH and then nothing."""

    def __init__(self, server: Server, token: str, url: str, offset: int, data: bytes, announced: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        path = url.removeprefix(server.url)
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\nContent-Length: {announced}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + data)

    def close(self) -> None:
        self._socket.close()


def test_a_newcomer_gets_the_upload_at_once_and_what_came_counts(
    shared: Server, token: str, http: httpx.Client
) -> None:
    url = begin(http, 1_000_000).headers["location"]
    hanging = Slow(shared, token, url, 0, b"a" * 300_000, 1_000_000)
    time.sleep(0.3)
    began = time.monotonic()
    offset = offset_of(http, url)
    assert time.monotonic() - began < 1
    assert offset == 300_000
    also_hanging = Slow(shared, token, url, offset, b"b" * 100_000, 700_000)
    time.sleep(0.3)
    began = time.monotonic()
    answer = send(http, url, 400_000, b"c" * 600_000)
    assert time.monotonic() - began < 1
    assert answer.status_code == 204, answer.text
    hanging.close()
    also_hanging.close()
    assert stored(shared, url) == b"a" * 300_000 + b"b" * 100_000 + b"c" * 600_000


def test_many_writers_at_once_leave_one_story(shared: Server, token: str, http: httpx.Client) -> None:
    size = 250_000
    url = begin(http, size).headers["location"]

    until = time.monotonic() + 30

    def write() -> None:
        with shared.client(token) as mine:
            while time.monotonic() < until:
                found = mine.get(url)
                if found.status_code == 429:
                    time.sleep(float(found.headers["retry-after"]))
                    continue
                at = int(found.json()["offset"])
                if at >= size:
                    return
                answer = send(mine, url, at, pattern(at, min(at + 50_000, size)))
                assert answer.status_code in {204, 409, 429}, answer.text

    threads = [threading.Thread(target=write) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert stored(shared, url) == pattern(0, size)


def pattern(begin_at: int, end: int) -> bytes:
    return bytes((at * 31 + at // 251) % 256 for at in range(begin_at, end))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process that expires soon, gives up soon, has a small quota, and a small disk where that can be had."""
    folder = tmp_path_factory.mktemp("strict")
    settings = {
        "upload.expires_s": 2,
        "upload.sweep_s": 0.5,
        "upload.idle_s": 0.7,
        "upload.quota_bytes": 40_000_000,
        "upload.max_size": 30_000_000,
        "upload.reserve_bytes": 1_000_000,
    }
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    data = folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)], check=True)
    try:
        with serving(data, settings) as server:
            yield server
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)


@pytest.mark.embedded
def test_what_is_not_finished_expires_with_its_film(strict: Server) -> None:
    with strict.admin() as http:
        made = begin(http, 10)
        url, asset_id = made.headers["location"], made.headers["streamgate-asset"]
        send(http, url, 0, b"01234")
        time.sleep(2.1)
        assert problem(send(http, url, 5, b"56789")) == (410, "upload_expired")
        assert http.head(url, headers=TUS).status_code == 410
        wait_for(lambda: http.get(f"/api/v1/assets/{asset_id}").status_code == 404, 10)
        wait_for(lambda: keys(strict, folder_of(url)) == [], 10)
        assert problem(http.get(url)) == (410, "upload_expired")


@pytest.mark.embedded
def test_a_client_that_falls_silent_keeps_what_came(strict: Server) -> None:
    with strict.admin() as http:
        url = begin(http, 1_000_000).headers["location"]
        hanging = Slow(strict, strict.admin_key, url, 0, b"a" * 200_000, 1_000_000)
        wait_for(lambda: http.get(url).json()["offset"] == 200_000, 5)
        hanging.close()


@pytest.mark.embedded
def test_quota_size_and_disk_are_looked_at_before_anything_is_taken(strict: Server) -> None:
    with strict.admin() as http:
        assert problem(begin(http, 30_000_001)) == (413, "payload_too_large")
        full = begin(http, 28_000_000)
        assert problem(full) == (507, "insufficient_storage")
        assert "free space" in full.json()["detail"]
        first = begin(http, 15_000_000)
        assert first.status_code == 201
        assert problem(begin(http, 15_000_000)) == (507, "insufficient_storage")
        http.delete(first.headers["location"], headers=TUS)


@pytest.mark.embedded
def test_a_disk_that_fills_up_is_said_and_what_was_stored_stays(strict: Server) -> None:
    with strict.admin() as http:
        url = begin(http, upload_defer_length="1").headers["location"]
        assert send(http, url, 0, b"x" * 1_000_000).status_code == 204
        ballast = strict.data_dir / "ballast"
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(bytes(100_000))
                    file.flush()
        except OSError:
            pass

        def endless() -> Iterator[bytes]:
            for _ in range(60):
                yield bytes(500_000)

        assert problem(send(http, url, 1_000_000, endless())) == (507, "insufficient_storage")
        ballast.unlink()
        offset = offset_of(http, url)
        assert offset >= 1_000_000
        assert send(http, url, offset, b"y" * 1000, upload_length=str(offset + 1000)).status_code == 204
        assert asset(strict, http.get(url).json()["asset_id"])["state"] in {"uploading", "processing", "failed"}
        assert Path(strict.data_dir / "streamgate.db").exists()
