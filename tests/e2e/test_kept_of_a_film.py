"""What is kept of a film: what is lost is made again, what is deleted is gone, and what else there is to it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.support.films import film
from tests.support.inside import keys, lose, rows
from tests.support.manifest_checks import check_hls, check_mpd
from tests.support.product import play, probe, problem, upload, wait_final
from tests.support.server import Server, wait_for
from tests.support.spoken import spoken_film

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_lost_object_is_made_again(shared: Server, tmp_path: Path) -> None:
    source = film(tmp_path, seconds=9, width=320, height=240)
    asset_id = upload(shared, source, visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    base = play(shared, asset_id, None).json()["hls_url"].removesuffix("/master.m3u8")
    first = httpx.get(f"{base}/240p/1.m4s").content
    query = "SELECT prefix FROM transcoder_chunks WHERE asset_id = :film AND rendition = '240p' AND chunk = 1"
    ((prefix,),) = rows(shared, query, film=asset_id)
    lose(shared, prefix)
    with shared.admin() as http:
        assert http.post("/api/v1/cache/purge", json={"tags": [f"asset:{asset_id}"]}).json()["purged"] >= 1

    def is_made_again() -> bool:
        """Asked for until a cache elsewhere has let go of it."""
        again = httpx.get(f"{base}/240p/1.m4s", timeout=30)
        assert again.status_code == 200
        assert again.content == first
        return rows(shared, query, film=asset_id) != [(prefix,)]

    wait_for(is_made_again, 10)
    assert wait_final(shared, asset_id)["state"] == "ready"


def sheets(server: Server, asset_id: str) -> list[str]:
    return [key for key in keys(server, f"assets/{asset_id}") if "/storyboard/" in key and key.endswith("/0.jpg")]


def test_a_lost_sheet_of_the_storyboard_is_made_again(shared: Server, tmp_path: Path) -> None:
    asset_id = upload(shared, film(tmp_path, seconds=7, width=320, height=240), visibility="public")
    wait_final(shared, asset_id)
    url = play(shared, asset_id, None).json()["storyboard_url"].replace("storyboard.vtt", "storyboard/0.jpg")
    first = httpx.get(url, timeout=30).raise_for_status().content
    (stored,) = sheets(shared, asset_id)
    lose(shared, stored)
    with shared.admin() as http:
        assert http.post("/api/v1/cache/purge", json={"tags": [f"asset:{asset_id}"]}).json()["purged"] >= 1

    def is_made_again() -> bool:
        assert httpx.get(url, timeout=30).raise_for_status().content == first
        return sheets(shared, asset_id) not in ([], [stored])

    wait_for(is_made_again, 10)


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
    wait_for(lambda: not keys(shared, f"assets/{asset_id}"), 10)
    wait_for(lambda: rows_about(shared, asset_id) == 0, 10)
    for path in ("master.m3u8", "storyboard.vtt", "storyboard/0.jpg", "captions/en.vtt", "240p/0.iframe.m4s"):
        assert httpx.get(urljoin(url, path)).status_code in {403, 404}, path


def rows_about(server: Server, asset_id: str) -> int:
    """Rows that still name the film beside its emptied entry in the catalog."""
    named = {
        "upload_parts": "holder",
        "upload_uploads": "asset_id",
        "transcoder_films": "asset_id",
        "transcoder_chunks": "asset_id",
    }
    found = [
        rows(server, f"SELECT count(*) FROM {table} WHERE {column} = :film", film=asset_id)
        for table, column in named.items()
    ]
    return sum(count for ((count,),) in found)


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
