"""Films that are none: each fails with a code and a sentence, nothing hangs, nothing else is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.films import film
from tests.support.product import asset, play, problem, upload_bytes, wait_final
from tests.support.server import Server

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///{secret}\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile '/{secret}'\n"
DASH = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>file:///{secret}</BaseURL></Period></MPD>'
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


def disguised(text: bytes, server: Server) -> bytes:
    secret = str(server.data_dir / "admin.key").lstrip("/").encode()
    return text.replace(b"{secret}", secret)


BAD: dict[str, tuple[bytes, set[str]]] = {
    "no video": (b"just some words\n" * 100, {"unsupported_container"}),
    "noise": (os.urandom(200_000), {"unsupported_container", "malformed_media"}),
    "nothing": (b"", {"malformed_media"}),
    "a playlist in disguise": (PLAYLIST, {"unsupported_container", "malformed_media"}),
    "an ffconcat in disguise": (CONCAT, {"unsupported_container", "malformed_media"}),
    "a DASH manifest in disguise": (DASH, {"unsupported_container", "malformed_media"}),
    "a session description in disguise": (SDP, {"unsupported_container", "malformed_media"}),
    "a picture": (bytes.fromhex("89504e470d0a1a0a") + os.urandom(1000), {"unsupported_container", "malformed_media"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_film_that_is_none_fails_with_a_code(shared: Server, name: str) -> None:
    content, codes = BAD[name]
    asset_id = upload_bytes(shared, disguised(content, shared))
    found = wait_final(shared, asset_id, 30)
    assert found["state"] == "failed"
    assert found["error"]["code"] in codes
    assert found["error"]["detail"].endswith(".")
    assert (found["playable"], found["progress"]) == (False, 0.0)
    assert problem(play(shared, asset_id, shared.admin_key)) == (409, "conflict")


def test_a_film_that_breaks_off_says_so(shared: Server, tmp_path: Path) -> None:
    whole = film(tmp_path, seconds=6, width=320, height=240).read_bytes()
    asset_id = upload_bytes(shared, whole[: len(whole) // 2])
    found = wait_final(shared, asset_id, 30)
    if found["state"] == "failed":
        assert found["error"]["code"] == "truncated_media"
    else:
        assert "damaged" in {warning["code"] for warning in found["warnings"]}


def test_a_failed_film_can_be_tried_again_and_deleted(shared: Server) -> None:
    asset_id = upload_bytes(shared, b"no film at all" * 50)
    first = wait_final(shared, asset_id, 30)
    assert first["state"] == "failed"
    with shared.admin() as http:
        jobs = http.get("/api/v1/jobs", params={"subject": asset_id}).json()["items"]
        assert [(job["kind"], job["state"]) for job in jobs] == [("transcoder.ingest", "failed")]
        assert jobs[0]["errors"][0]["code"] == "unsupported_container"
        assert http.post(f"/api/v1/assets/{asset_id}/retry").status_code == 202
        assert wait_final(shared, asset_id, 30)["error"] == first["error"]
        assert problem(http.post(f"/api/v1/assets/{asset_id}/cancel")) == (409, "conflict")
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
        assert problem(http.get(f"/api/v1/assets/{asset_id}")) == (404, "not_found")


def test_the_server_is_well_after_all_that(shared: Server, ready_film: str) -> None:
    with shared.admin() as http:
        health = http.get("/health").json()
    assert health["status"] == "ok", health
    assert asset(shared, ready_film)["state"] == "ready"
