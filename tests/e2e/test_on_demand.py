"""Segments on demand: complete playlists from the start, what is missing is made when somebody asks, what is lost is made again."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from tests.support.films import film
from tests.support.manifest_checks import check_hls, check_mpd
from tests.support.product import asset, play, probe, problem, upload, wait_final, wait_playable
from tests.support.server import Server, serving, wait_for
from tests.support.spoken import spoken_film

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server that encodes slowly, and a film of a minute in it that is far from ready: (server, asset id, base address)."""
    settings = {"transcoder.rungs": [240, 720], "transcoder.preset": "slow", "transcoder.passthrough": False}
    with serving(tmp_path_factory.mktemp("slow") / "data", settings) as server:
        source = film(tmp_path_factory.mktemp("films"), seconds=60, width=1280, height=720)
        asset_id = upload(server, source, visibility="public")
        wait_playable(server, asset_id)
        url = str(play(server, asset_id, None).json()["hls_url"])
        yield server, asset_id, url.removesuffix("/master.m3u8")


def ready_count(server: Server, asset_id: str, name: str) -> str:
    (found,) = [r for r in asset(server, asset_id)["renditions"] if r["name"] == name]
    return str(found["state"])


def test_a_film_plays_long_before_it_is_ready(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    found = asset(server, asset_id)
    assert found["playable"]
    assert found["state"] == "processing"
    assert found["progress"] < 0.7
    playlist = httpx.get(f"{base}/720p/playlist.m3u8").text
    assert playlist.count("#EXTINF") == 15
    assert "#EXT-X-ENDLIST" in playlist


def test_the_last_segment_is_made_when_it_is_asked_for(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    before = asset(server, asset_id)["progress"]
    began = time.monotonic()
    answer = httpx.get(f"{base}/240p/14.m4s", timeout=30)
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
        threading.Thread(target=lambda: answers.append(httpx.get(f"{base}/240p/10.m4s", timeout=30))) for _ in range(20)
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


def test_a_wait_has_an_end(slow: tuple[Server, str, str], tmp_path: Path) -> None:
    with serving(
        tmp_path / "data",
        {"streaming.segment_wait_s": 0.2, "transcoder.preset": "slow", "transcoder.passthrough": False},
    ) as server:
        source = film(tmp_path, seconds=20, width=1280, height=720)
        asset_id = upload(server, source, visibility="public")
        wait_playable(server, asset_id)
        base = play(server, asset_id, None).json()["hls_url"].removesuffix("/master.m3u8")
        began = time.monotonic()
        answer = httpx.get(f"{base}/720p/4.m4s", timeout=30)
        assert time.monotonic() - began < 3
        assert problem(answer) == (504, "deadline_exceeded")
        assert int(answer.headers["retry-after"]) >= 1
        wait_for(lambda: httpx.get(f"{base}/720p/4.m4s", timeout=30).status_code == 200, 60, 0.5)


def encoders(server: Server) -> int:
    import psutil

    assert server.process is not None
    return sum(len(child.children()) for child in psutil.Process(server.process.pid).children())


def test_cancel_stops_the_encoders_and_what_is_there_still_plays(slow: tuple[Server, str, str]) -> None:
    server, asset_id, base = slow
    assert httpx.get(f"{base}/240p/0.m4s").status_code == 200
    with server.admin() as http:
        assert http.post(f"/api/v1/assets/{asset_id}/cancel").status_code == 202
        assert http.post(f"/api/v1/assets/{asset_id}/cancel").status_code == 202
    wait_for(lambda: encoders(server) == 0, 5)
    assert asset(server, asset_id)["state"] == "canceled"
    assert httpx.get(f"{base}/240p/0.m4s").status_code == 200
    missing = [n for n in range(15) if httpx.get(f"{base}/720p/{n}.m4s", timeout=30).status_code != 200]
    assert missing
    assert problem(httpx.get(f"{base}/720p/{missing[0]}.m4s")) == (503, "unavailable")
    with server.admin() as http:
        assert http.post(f"/api/v1/assets/{asset_id}/retry").status_code == 202
        assert problem(http.post(f"/api/v1/assets/{asset_id}/retry")) == (409, "conflict")
    assert wait_final(server, asset_id, 120)["state"] == "ready"


def test_a_lost_object_is_made_again(shared: Server, tmp_path: Path) -> None:
    source = film(tmp_path, seconds=9, width=320, height=240)
    asset_id = upload(shared, source, visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    base = play(shared, asset_id, None).json()["hls_url"].removesuffix("/master.m3u8")
    first = httpx.get(f"{base}/240p/1.m4s").content
    with sqlite3.connect(shared.data_dir / "streamgate.db") as database:
        query = "SELECT prefix FROM transcoder_chunks WHERE asset_id = ? AND rendition = '240p' AND chunk = 1"
        (prefix,) = database.execute(query, (asset_id,)).fetchone()
    shutil.rmtree(shared.data_dir / "objects" / prefix)
    with shared.admin() as http:
        assert http.post("/api/v1/cache/purge", json={"tags": [f"asset:{asset_id}"]}).json()["purged"] >= 1
    again = httpx.get(f"{base}/240p/1.m4s", timeout=30)
    assert again.status_code == 200
    assert again.content == first
    assert wait_final(shared, asset_id)["state"] == "ready"


def test_a_lost_sheet_of_the_storyboard_is_made_again(shared: Server, tmp_path: Path) -> None:
    asset_id = upload(shared, film(tmp_path, seconds=7, width=320, height=240), visibility="public")
    wait_final(shared, asset_id)
    url = play(shared, asset_id, None).json()["storyboard_url"].replace("storyboard.vtt", "storyboard/0.jpg")
    first = httpx.get(url, timeout=30).raise_for_status().content
    (stored,) = (shared.data_dir / "objects" / "assets" / asset_id).glob("*/storyboard/*/0.jpg")
    stored.unlink()
    with shared.admin() as http:
        assert http.post("/api/v1/cache/purge", json={"tags": [f"asset:{asset_id}"]}).json()["purged"] >= 1
    assert httpx.get(url, timeout=30).raise_for_status().content == first
    (again,) = (shared.data_dir / "objects" / "assets" / asset_id).glob("*/storyboard/*/0.jpg")
    assert again != stored


def test_sound_alone_is_a_film_of_two_rates_and_no_pictures(shared: Server, tmp_path: Path) -> None:
    asset_id = upload(shared, film(tmp_path, seconds=9, video=False), visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    started = play(shared, asset_id, None).json()
    assert (started["storyboard_url"], started["poster_url"]) == (None, None)
    with httpx.Client(timeout=30) as http:
        for path in ("storyboard.vtt", "storyboard/0.jpg", "poster.jpg"):
            assert problem(http.get(urljoin(started["hls_url"], path))) == (404, "not_found")
        found = check_hls(
            started["hls_url"],
            lambda url: http.get(url).raise_for_status().text,
            lambda url: http.get(url).status_code == 200,
        )
        check_mpd(http.get(started["dash_url"]).raise_for_status().text)
    assert [url.rsplit("/", 2)[1] for url in found] == ["audio-1-64k", "audio-1"]
    sizes = []
    for url in found:
        packets = probe(url, "-show_entries", "packet=size,pts_time,duration_time")["packets"]
        end = float(packets[-1]["pts_time"]) + float(packets[-1]["duration_time"])
        assert (float(packets[0]["pts_time"]), end) == (0, pytest.approx(9, abs=0.05))
        sizes.append(sum(int(packet["size"]) for packet in packets))
    assert sizes[0] < sizes[1]


def test_deleting_a_film_takes_everything_with_it(shared: Server, tmp_path: Path) -> None:
    asset_id = upload(shared, spoken_film(tmp_path, seconds=8), visibility="public")
    wait_final(shared, asset_id)
    started = play(shared, asset_id, None).json()
    url = started["hls_url"]
    for path in ("master.m3u8", "storyboard/0.jpg", "captions/en.vtt", "240p/0.iframe.m4s"):
        assert httpx.get(urljoin(url, path), timeout=30).status_code == 200, path
    with shared.admin() as http:
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
    objects = shared.data_dir / "objects"
    wait_for(lambda: not (objects / "assets" / asset_id).exists(), 10)
    wait_for(lambda: rows_about(shared, asset_id) == 0, 10)
    for path in ("master.m3u8", "storyboard.vtt", "storyboard/0.jpg", "captions/en.vtt", "240p/0.iframe.m4s"):
        assert httpx.get(urljoin(url, path)).status_code in {403, 404}, path


def rows_about(server: Server, asset_id: str) -> int:
    """Rows that still name the film beside its emptied entry in the catalog."""
    counts: dict[str, Any] = {}
    with sqlite3.connect(server.data_dir / "streamgate.db") as database:
        for table, column in (
            ("upload_parts", "holder"),
            ("upload_uploads", "asset_id"),
            ("transcoder_films", "asset_id"),
            ("transcoder_chunks", "asset_id"),
        ):
            counts[table] = database.execute(
                f"SELECT count(*) FROM {table} WHERE {column} = ?", (asset_id,)
            ).fetchone()[0]
    return sum(counts.values())


def test_a_poster_can_be_chosen_and_events_follow_a_film(shared: Server, ready_film: str) -> None:
    with shared.admin() as http:
        first = http.get(f"/api/v1/assets/{ready_film}/poster.jpg")
        assert first.headers["content-type"] == "image/jpeg"
        assert http.patch(f"/api/v1/assets/{ready_film}", json={"poster_time": 11.0}).status_code == 200
        wait_for(lambda: http.get(f"/api/v1/assets/{ready_film}/poster.jpg").content != first.content, 20)
        assert problem(http.patch(f"/api/v1/assets/{ready_film}", json={"poster_time": 99})) == (
            422,
            "validation_failed",
        )
        with http.stream("GET", f"/api/v1/assets/{ready_film}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            text = "".join(stream.iter_text())
        assert "event: asset" in text
        assert '"state":"ready"' in text
    assert httpx.get(f"{shared.url}/api/v1/assets/{ready_film}/poster.jpg").status_code == 200
