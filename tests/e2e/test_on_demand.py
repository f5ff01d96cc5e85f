"""Segments on demand: complete playlists from the start, and what is missing is made when somebody asks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.films import film
from tests.support.product import asset, play, problem, upload, wait_final, wait_playable
from tests.support.server import Server, wait_for
from tests.support.topology import Topology

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_wait_has_an_end(topology: Topology, tmp_path: Path) -> None:
    with topology.serving(
        tmp_path / "data",
        {
            "streaming.segment_wait_s": 0.2,
            "transcoder.rungs": [720],
            "transcoder.preset": "slow",
            "transcoder.passthrough": False,
        },
    ) as server:
        source = film(tmp_path, seconds=12, width=1280, height=720)
        asset_id = upload(server, source, visibility="public")
        wait_playable(server, asset_id)
        base = play(server, asset_id, None).json()["hls_url"].removesuffix("/master.m3u8")
        began = time.monotonic()
        answer = httpx.get(f"{base}/720p/2.m4s", timeout=30)
        assert time.monotonic() - began < 3
        assert problem(answer) == (504, "deadline_exceeded")
        assert int(answer.headers["retry-after"]) >= 1
        wait_for(lambda: httpx.get(f"{base}/720p/2.m4s", timeout=30).status_code == 200, 60, 0.5)


@pytest.fixture(scope="module")
def slow(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server that encodes slowly, and a film in it that is far from ready: (server, asset id, base address)."""
    settings = {"transcoder.rungs": [240, 720], "transcoder.preset": "slow", "transcoder.passthrough": False}
    with topology.serving(tmp_path_factory.mktemp("slow") / "data", settings) as server:
        source = film(tmp_path_factory.mktemp("films"), seconds=40, width=1280, height=720)
        asset_id = upload(server, source, visibility="public")
        wait_playable(server, asset_id)
        url = str(play(server, asset_id, None).json()["hls_url"])
        yield server, asset_id, url.removesuffix("/master.m3u8")


def test_a_film_plays_long_before_it_is_ready(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    found = asset(server, asset_id)
    assert found["playable"]
    assert found["state"] == "processing"
    assert found["progress"] < 0.7
    playlist = httpx.get(f"{base}/720p/playlist.m3u8").text
    assert playlist.count("#EXTINF") == 10
    assert "#EXT-X-ENDLIST" in playlist


def test_what_nobody_waits_for_any_more_gives_way(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    url = httpx.URL(base)
    with server.admin() as http:

        def urgent() -> list[str]:
            found = http.get("/api/v1/jobs", params={"subject": asset_id, "kind": "transcoder.chunk", "limit": 100})
            live = [job for job in found.json()["items"] if job["state"] in {"queued", "running"}]
            return [job["id"] for job in live if job["priority"] == 0]

        def job(job_id: str) -> dict[str, object]:
            return dict(http.get(f"/api/v1/jobs/{job_id}").json())

        with socket.create_connection((url.host, url.port or 80)) as leaving:
            leaving.sendall(f"GET {url.path}/720p/8.m4s HTTP/1.1\r\nhost: {url.host}\r\n\r\n".encode())
            wait_for(urgent, 10, 0.02)
            (asked,) = urgent()
        wait_for(lambda: job(asked)["priority"] == 100, 5, 0.02)
        assert httpx.get(f"{base}/240p/5.m4s", timeout=30).status_code == 200
        assert job(asked)["state"] in {"queued", "running"}


def test_the_last_segment_is_made_when_it_is_asked_for(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    before = asset(server, asset_id)["progress"]
    began = time.monotonic()
    answer = httpx.get(f"{base}/240p/9.m4s", timeout=30)
    waited = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    after = asset(server, asset_id)
    assert after["state"] == "processing"
    assert after["progress"] < 1
    assert waited < 9
    assert before < 1


def test_many_who_ask_for_the_same_cost_one_encode(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.get(f"{base}/240p/6.m4s", timeout=30))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    with server.admin() as http:
        jobs = http.get("/api/v1/jobs", params={"subject": asset_id, "limit": 100}).json()["items"]
    assert len([job for job in jobs if job["priority"] == 0 and job["kind"] == "transcoder.chunk"]) <= 4


def encoders(server: Server) -> int:
    import psutil

    process = server.of("transcoder").process
    assert process is not None
    return sum(len(child.children()) for child in psutil.Process(process.pid).children())


def test_cancel_stops_the_encoders_and_what_is_there_still_plays(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    assert httpx.get(f"{base}/240p/0.m4s").status_code == 200
    with server.admin() as http:
        assert http.post(f"/api/v1/assets/{asset_id}/cancel").status_code == 202
        assert http.post(f"/api/v1/assets/{asset_id}/cancel").status_code == 202
    wait_for(lambda: encoders(server) == 0, 5)
    assert asset(server, asset_id)["state"] == "canceled"
    assert httpx.get(f"{base}/240p/0.m4s").status_code == 200
    missing = [n for n in range(10) if httpx.get(f"{base}/720p/{n}.m4s", timeout=30).status_code != 200]
    assert missing
    assert problem(httpx.get(f"{base}/720p/{missing[0]}.m4s")) == (503, "unavailable")
    with server.admin() as http:
        assert http.post(f"/api/v1/assets/{asset_id}/retry").status_code == 202
        assert problem(http.post(f"/api/v1/assets/{asset_id}/retry")) == (409, "conflict")
    assert wait_final(server, asset_id, 120)["state"] == "ready"
