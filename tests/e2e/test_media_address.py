"""The media address: what a playback URL opens, and everything that it does not."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from streamgate.domain.identity import Prefix, new_id
from streamgate.plugins.streaming.tokens import PlaybackTokens, load_keys
from tests.support.product import play, problem
from tests.support.server import Server
from tests.support.wallet import Wallet

FILES = {
    "master.m3u8": ("application/vnd.apple.mpegurl", "private, no-cache"),
    "manifest.mpd": ("application/dash+xml", "private, no-cache"),
    "240p/playlist.m3u8": ("application/vnd.apple.mpegurl", "private, no-cache"),
    "audio-1/playlist.m3u8": ("application/vnd.apple.mpegurl", "private, no-cache"),
    "240p/init.mp4": ("video/mp4", "private, max-age=3600"),
    "audio-1/init.mp4": ("audio/mp4", "private, max-age=3600"),
    "360p/0.m4s": ("video/iso.segment", "private, max-age=3600"),
    "360p/iframes.m3u8": ("application/vnd.apple.mpegurl", "private, no-cache"),
    "360p/1.iframe.m4s": ("video/iso.segment", "private, max-age=3600"),
    "poster.jpg": ("image/jpeg", "private, no-cache"),
    "storyboard.vtt": ("text/vtt; charset=utf-8", "private, no-cache"),
    "storyboard/0.jpg": ("image/jpeg", "private, max-age=3600"),
    "captions/en.vtt": ("text/vtt; charset=utf-8", "private, no-cache"),
    "captions/en/playlist.m3u8": ("application/vnd.apple.mpegurl", "private, no-cache"),
}


@pytest.fixture
def base(shared: Server, ready_film: str) -> str:
    started = play(shared, ready_film, None)
    assert started.status_code == 201, started.text
    return str(started.json()["hls_url"]).removesuffix("/master.m3u8")


@pytest.fixture
def captioned(shared: Server, spoken: str) -> str:
    return str(play(shared, spoken, None).json()["hls_url"]).removesuffix("/master.m3u8")


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def tokens(shared: Server) -> PlaybackTokens:
    told = shared.settings.get("streaming.playback_keys_file")
    return PlaybackTokens(load_keys(Path(told) if told else None, shared.data_dir))


@pytest.mark.parametrize("path", FILES)
def test_every_file_has_its_type_its_caching_and_its_validators(captioned: str, http: httpx.Client, path: str) -> None:
    base = captioned
    media_type, caching = FILES[path]
    answer = http.get(f"{base}/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == caching
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-credentials" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content) > 0
    assert http.head(f"{base}/{path}").headers["content-length"] == answer.headers["content-length"]
    again = http.get(f"{base}/{path}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = http.get(f"{base}/{path}", headers={"range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, answer.content[3:10])


NOT_THERE = [
    "",
    "manifest.mpd/",
    "240p",
    "240p/",
    "240p/99.m4s",
    "240p/-1.m4s",
    "240p/00.m4s",
    "240p/1e1.m4s",
    "999p/0.m4s",
    "240p/../360p/0.m4s",
    "%2e%2e/240p/0.m4s",
    "240p/..%2f..%2fadmin.key",
    "..%2f..%2f..%2fadmin.key",
    "240p//0.m4s",
    "240p/0.m4s/",
    "240p/0.m4s%00",
    "240p/0.m4s%0a",
    "240p\\0.m4s",
    "240p/init.mp4.",
    "POSTER.jpg",
    "storyboard/00.jpg",
    "storyboard/1.jpg",
    "captions/en.vtt",
    "captions/en/playlist.m3u8",
    "captions/../240p/0.m4s",
    "captions/playlist.m3u8",
    "audio-1/iframes.m3u8",
]


@pytest.mark.parametrize("path", NOT_THERE)
def test_nothing_else_is_there(base: str, path: str) -> None:
    address = urlsplit(base)
    connection = HTTPConnection(address.hostname or "", address.port or 0, timeout=10)
    try:
        # As it stands: a client library would tidy the path up before it sends it.
        connection.request("GET", f"{address.path}/{path}")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (404, "not_found")
    finally:
        connection.close()


def test_only_reading(base: str, http: httpx.Client) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = http.request(method, f"{base}/master.m3u8")
        assert problem(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    preflight = http.options(
        f"{base}/240p/0.m4s", headers={"origin": "https://a.example", "access-control-request-method": "GET"}
    )
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")


def test_forged_foreign_and_malformed_tokens_are_not_found(
    shared: Server, ready_film: str, base: str, http: httpx.Client, tokens: PlaybackTokens
) -> None:
    token = base.split("/")[4]
    later = int(time.time()) + 3600
    wrong = {
        "forged": PlaybackTokens(((1, bytes(32)),)).mint(new_id(Prefix.PLAYBACK), ready_film, later),
        "changed": token[:-1] + ("A" if token[-1] != "A" else "E"),
        "short": token[:-1],
        "long": token + "A",
        "of another film": tokens.mint(new_id(Prefix.PLAYBACK), new_id(Prefix.ASSET), later),
        "an API key": shared.admin_key,
        "nothing": "x",
    }
    for name, value in wrong.items():
        answer = http.get(f"{shared.url}/p/{value}/{ready_film}/master.m3u8")
        assert problem(answer) == (404, "not_found"), name


def test_a_token_of_a_session_that_never_was_is_refused(
    shared: Server, ready_film: str, http: httpx.Client, tokens: PlaybackTokens
) -> None:
    invented = tokens.mint(new_id(Prefix.PLAYBACK), ready_film, int(time.time()) + 3600)
    assert problem(http.get(f"{shared.url}/p/{invented}/{ready_film}/master.m3u8")) == (403, "session_revoked")


def test_an_expired_token_is_refused(
    shared: Server, ready_film: str, http: httpx.Client, tokens: PlaybackTokens
) -> None:
    expired = tokens.mint(new_id(Prefix.PLAYBACK), ready_film, int(time.time()) - 1)
    assert problem(http.get(f"{shared.url}/p/{expired}/{ready_film}/master.m3u8")) == (403, "session_expired")


def test_a_session_that_was_ended_is_refused_at_once(shared: Server, ready_film: str, http: httpx.Client) -> None:
    token = Wallet().sign_in(shared.url)
    started = play(shared, ready_film, token).json()
    assert http.get(started["hls_url"]).status_code == 200
    with shared.client(token) as mine, shared.client(Wallet().sign_in(shared.url)) as other:
        listed = [item["session_id"] for item in mine.get("/api/v1/playback").json()["items"]]
        assert listed == [started["session_id"]]
        assert problem(other.delete(f"/api/v1/playback/{started['session_id']}")) == (404, "not_found")
        assert http.get(started["hls_url"]).status_code == 200
        assert mine.delete(f"/api/v1/playback/{started['session_id']}").status_code == 204
    assert problem(http.get(started["hls_url"])) == (403, "session_revoked")


def test_media_tokens_do_not_open_the_api_and_api_tokens_not_the_media(
    shared: Server, ready_film: str, base: str, http: httpx.Client
) -> None:
    for credential in (base.split("/")[4],):
        answer = http.get(f"{shared.url}/api/v1/auth/session", headers={"authorization": f"Bearer {credential}"})
        assert problem(answer) == (401, "unauthenticated")
    jwt = Wallet().sign_in(shared.url)
    for address in (f"{shared.url}/p/{jwt}/{ready_film}/master.m3u8", f"{shared.url}/p/x/{ready_film}/master.m3u8"):
        answer = http.get(address, headers={"authorization": f"Bearer {jwt}"})
        assert problem(answer) == (404, "not_found")


def test_a_revoked_key_ends_what_was_started_with_it(shared: Server, ready_film: str, http: httpx.Client) -> None:
    with shared.admin() as admin:
        key = admin.post("/api/v1/auth/api-keys", json={"name": "player", "role": "viewer"}).json()
        url = play(shared, ready_film, key["key"]).json()["hls_url"]
        assert http.get(url).status_code == 200
        assert admin.delete(f"/api/v1/auth/api-keys/{key['id']}").status_code == 204
    until = time.monotonic() + 5
    while http.get(url).status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert problem(http.get(url)) == (403, "session_revoked")


def test_secrets_stay_out_of_the_log(shared: Server, base: str, http: httpx.Client) -> None:
    http.get(f"{base}/nothing-here")
    http.get(f"{shared.url}/api/v1/auth/session", headers={"authorization": "Bearer sg_key_" + "s" * 43})
    log = shared.log()
    assert base.split("/")[4] not in log
    assert shared.admin_key not in log
    assert "s" * 43 not in log


def raw(server: Server, sent: bytes, *, answers: int = 1, pieces: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer on one connection, the request sent in pieces."""
    found = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        step = -(-len(sent) // pieces)
        for at in range(0, len(sent), step):
            line.sendall(sent[at : at + step])
            time.sleep(0.02 if pieces > 1 else 0)
        stream = line.makefile("rb")
        for _ in range(answers):
            status = int(stream.readline().split()[1])
            headers = {}
            while (text := stream.readline().strip()) != b"":
                name, _, value = text.decode().partition(": ")
                headers[name] = value
            found.append((status, headers, stream.read(int(headers.get("content-length", 0)))))
    return found


def test_an_answer_at_once_is_the_same_answer(shared: Server, base: str) -> None:
    path = base.removeprefix(shared.url)
    varying = {"x-request-id", "date"}
    for name in ("240p/0.m4s", "240p/init.mp4", "master.m3u8", "manifest.mpd", "360p/playlist.m3u8"):
        plain = f"GET {path}/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        ((status, headers, body),) = raw(shared, plain.replace(b"Host: x", b"Host: x\r\nTE: trailers"))
        assert status == 200
        for sent, answers, pieces in ((plain, 1, 1), (plain, 1, 3), (plain * 3, 3, 1)):
            for again in raw(shared, sent, answers=answers, pieces=pieces):
                assert (again[0], again[2]) == (200, body)
                assert {k: v for k, v in again[1].items() if k not in varying} == {
                    k: v for k, v in headers.items() if k not in varying
                }
                assert varying <= again[1].keys()


def test_what_is_not_plain_takes_the_longer_way(shared: Server, base: str) -> None:
    path = f"{base}/240p/0.m4s".removeprefix(shared.url)
    (first,) = raw(shared, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def ask(*headers: str, version: str = "1.1") -> tuple[int, dict[str, str], bytes]:
        lines = [f"GET {path} HTTP/{version}", "Host: x", *headers, "", ""]
        return raw(shared, "\r\n".join(lines).encode())[0]

    assert ask("Range: bytes=2-5")[::2] == (206, first[2][2:6])
    assert ask(f"If-None-Match: {first[1]['etag']}")[0] == 304
    assert ask("TE: trailers", "X-Request-Id: abcdefgh12")[1]["x-request-id"] == "abcdefgh12"
    assert ask("Connection: close")[1].get("connection") == "close"
    assert ask("connection: keep-alive")[::2] == (200, first[2])
    assert ask(version="1.0")[::2] == (200, first[2])
    with httpx.Client() as http:
        assert http.head(f"{base}/240p/0.m4s").headers["content-length"] == str(len(first[2]))
        assert http.get(f"{base}/240p/0.m4s?x=1").content == first[2]
    smuggled = f"GET {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert raw(shared, smuggled + b"0\r\n\r\n")[0][::2] == (200, first[2])


def test_an_answer_at_once_has_the_request_id_that_was_given(shared: Server, base: str) -> None:
    path = f"{base}/240p/0.m4s".removeprefix(shared.url)
    given = {
        ("X-Request-Id: abcdefgh12",): "abcdefgh12",
        ("x-request-id:abcdefgh12", "X-Request-Id: abcdefgh34"): "abcdefgh12",
        ("X-Request-Id: not one", "X-Request-Id: abcdefgh34"): None,
        ("X-Request-Id: short",): None,
        (f"X-Request-Id: {'a' * 65}",): None,
    }
    for headers, kept in given.items():
        lines = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()
        for status, answer, _ in (*raw(shared, lines), *raw(shared, lines * 2, answers=2)):
            assert status == 200
            assert answer["x-request-id"] == kept or (kept is None and len(answer["x-request-id"]) == 24)


def test_an_ended_session_is_not_answered_at_once(shared: Server, ready_film: str) -> None:
    token = Wallet().sign_in(shared.url)
    started = play(shared, ready_film, token).json()
    url = started["hls_url"].replace("master.m3u8", "240p/0.m4s")
    with httpx.Client() as http, shared.client(token) as api:
        assert [http.get(url).status_code for _ in range(5)] == [200] * 5
        assert api.delete(f"/api/v1/playback/{started['session_id']}").status_code == 204
        assert problem(http.get(url)) == (403, "session_revoked")


def test_answers_at_once_are_counted(shared: Server, base: str) -> None:
    label = re.escape('{method="GET",route="/p/{token}/{asset_id}/{rendition}/{n}.m4s",status="200"}')

    def counted() -> float:
        told = httpx.get(f"{shared.of('streaming').url}/metrics").text
        found = re.search(rf"sg_http_requests_total{label} ([\d.e+]+)", told)
        return float(found[1]) if found else 0.0

    with httpx.Client() as http:
        http.get(f"{base}/240p/1.m4s")
        before = counted()
        for _ in range(10):
            assert http.get(f"{base}/240p/1.m4s").status_code == 200
    assert counted() == before + 10
