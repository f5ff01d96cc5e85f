"""The uploaded bytes as the film: playable at once, the same frames at the same times, beside rungs that fit them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.films import by_ffmpeg, film, moving, tone
from tests.support.inside import content, keys
from tests.support.manifest_checks import check_hls, check_mpd
from tests.support.players import SCRIPTS, player
from tests.support.product import asset, play, probe, problem, upload, upload_bytes, wait_final, wait_playable
from tests.support.server import Server, wait_for
from tests.support.topology import Topology
from tests.support.wallet import Wallet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SECONDS = 30
FRAMES = ("-show_entries", "frame=pts_time,best_effort_timestamp_time")
TOGETHER_S = 0.005


@pytest.fixture(scope="module")
def instant(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"transcoder.rungs": [120, 240, 360], "transcoder.preset": "ultrafast"}
    with topology.serving(tmp_path_factory.mktemp("instant") / "data", settings) as server:
        yield server


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """B-frames, priming, key frames up to ten seconds apart and where the scene changes; the index at the end."""
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "250", "-c:a", "aac", "-shortest")
    folder = tmp_path_factory.mktemp("natural")
    return by_ffmpeg(folder, "film.mp4", *moving(SECONDS, "640x360"), *tone(SECONDS), *coded)


@pytest.fixture(scope="module")
def regular(instant: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A film with a key frame every four seconds."""
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "100", "-sc_threshold", "0", "-c:a", "aac")
    source = by_ffmpeg(
        tmp_path_factory.mktemp("regular"), "film.mp4", *moving(SECONDS, "640x360"), *tone(SECONDS), *coded, "-shortest"
    )
    asset_id = upload(instant, source, visibility="public")
    assert wait_final(instant, asset_id)["state"] == "ready"
    return asset_id


@pytest.fixture(scope="module")
def served(instant: Server, natural: Path) -> str:
    asset_id = upload(instant, natural, visibility="public")
    wait_playable(instant, asset_id)
    return asset_id


def times(address: str | Path, kind: str) -> list[float]:
    """Presentation times of the decoded frames of the first track of a kind, ascending."""
    frames = probe(str(address), "-select_streams", f"{kind}:0", "-show_entries", "frame=pts_time")["frames"]
    return sorted(float(frame["pts_time"]) for frame in frames)


def renditions(found: dict[str, Any]) -> dict[str, str]:
    return {r["name"]: r["state"] for r in found["renditions"]}


def test_a_film_plays_before_anything_is_encoded(topology: Topology, tmp_path: Path, natural: Path) -> None:
    """Not one chunk can be encoded here in time, and the film plays all the same."""
    slow = {"transcoder.preset": "slow", "transcoder.rungs": [120, 240], "transcoder.chunk_timeout_s": 0.01}
    with topology.serving(tmp_path / "data", slow) as server:
        asset_id = upload(server, natural, visibility="public")
        found = wait_playable(server, asset_id, 20)
        assert found["source"]["mode"] == "passthrough"
        states = renditions(found)
        assert (states["source"], states["audio-1"]) == ("ready", "ready")
        base = play(server, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
        for name in ("source", "audio-1"):
            assert httpx.get(f"{base}{name}/0.m4s").status_code == 200
        final = wait_final(server, asset_id)
        assert final["state"] == "ready"
        assert "parts_missing" in {warning["code"] for warning in final["warnings"]}


def test_served_frames_are_those_of_the_upload(instant: Server, served: str, natural: Path) -> None:
    started = play(instant, served, None).json()
    base = started["hls_url"].removesuffix("master.m3u8")
    picture, sound = times(natural, "v"), times(natural, "a")
    for address in (f"{base}source/playlist.m3u8",):
        assert times(address, "v") == pytest.approx(picture, abs=0.001)
    heard = times(f"{base}audio-1/playlist.m3u8", "a")
    assert len(heard) == pytest.approx(len(sound), abs=1)
    assert abs((heard[-1] - picture[-1]) - (sound[-1] - picture[-1])) < TOGETHER_S


def test_all_renditions_are_cut_at_the_same_times(instant: Server, served: str) -> None:
    assert wait_final(instant, served)["state"] == "ready"
    started = play(instant, served, None).json()
    base = started["hls_url"].removesuffix("master.m3u8")
    lengths = {
        name: [float(n) for n in re.findall(r"#EXTINF:([0-9.]+)", httpx.get(f"{base}{name}/playlist.m3u8").text)]
        for name in ("source", "120p", "240p")
    }
    assert lengths["source"] == lengths["120p"] == lengths["240p"]
    assert max(lengths["source"]) > 4.5
    for name in ("120p", "source"):
        init = httpx.get(f"{base}{name}/init.mp4").content
        first = [
            float(probe("-", "-show_entries", "frame=pts_time", feed=init + httpx.get(f"{base}{name}/{n}.m4s").content)
                  ["frames"][0]["pts_time"])
            for n in range(len(lengths[name]))
        ]  # fmt: skip
        assert first == pytest.approx([sum(lengths[name][:n]) for n in range(len(first))], abs=0.002)


def test_the_manifests_name_the_upload_first_and_no_rung_of_its_size(instant: Server, served: str) -> None:
    started = play(instant, served, None).json()
    with httpx.Client() as http:
        check_hls(started["hls_url"], lambda url: http.get(url).raise_for_status().text)
        check_mpd(http.get(started["dash_url"]).raise_for_status().text)
        master = http.get(started["hls_url"]).text
        assert re.findall(r"^(\S+)/playlist\.m3u8$", master, re.MULTILINE) == ["source", "120p", "240p"]
        assert http.get(started["hls_url"].replace("master", "source/iframes")).status_code == 404
        part = http.get(started["hls_url"].replace("master.m3u8", "source/1.m4s"), headers={"range": "bytes=8-99"})
        whole = http.get(started["hls_url"].replace("master.m3u8", "source/1.m4s"))
        assert (part.status_code, part.content) == (206, whole.content[8:100])
        assert http.get(str(whole.url), headers={"if-none-match": whole.headers["etag"]}).status_code == 304
        assert http.get(started["hls_url"].replace("master.m3u8", "source/99.m4s")).status_code == 404


@pytest.mark.embedded
def test_a_segment_that_is_made_at_once_is_the_same_and_as_gated(instant: Server, natural: Path) -> None:
    """The longer way is what counts in the histogram of durations."""
    label = re.escape('{method="GET",route="/p/{token}/{asset_id}/{rendition}/{n}.m4s"}')

    def longer_ways() -> float:
        found = re.search(rf"sg_http_request_duration_seconds_count{label} ([\d.e+]+)", http.get("/metrics").text)
        return float(found[1]) if found else 0.0

    token = Wallet().sign_in(instant.url)
    asset_id = upload(instant, natural, visibility="public")
    wait_playable(instant, asset_id)
    started = play(instant, asset_id, token).json()
    base = started["hls_url"].removesuffix("master.m3u8")
    with httpx.Client(base_url=instant.url) as http, instant.client(token) as api:
        count = http.get(f"{base}source/playlist.m3u8").text.count(".m4s")
        paths = [f"{base}{name}/{n}.m4s" for name in ("source", "audio-1") for n in range(1, count - 1)]
        for name in ("source", "audio-1"):  # what is needed of the index is in memory then
            http.get(f"{base}{name}/0.m4s").raise_for_status()
        before = longer_ways()
        made = [http.get(path).raise_for_status() for path in paths]
        assert longer_ways() == before
        for path, answer in zip(paths, made, strict=True):
            same = http.get(path, headers={"te": "trailers"})
            assert same.content == answer.content
            varying = {"x-request-id", "date"}
            assert {k: v for k, v in same.headers.items() if k not in varying} == {
                k: v for k, v in answer.headers.items() if k not in varying
            }
        assert longer_ways() == before + len(paths)
        assert http.get(f"{base}source/{count}.m4s").status_code == 404
        assert api.delete(f"/api/v1/playback/{started['session_id']}").status_code == 204
        for n in (1, count - 1):
            assert problem(http.get(f"{base}source/{n}.m4s")) == (403, "session_revoked")


@pytest.mark.browser
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.once] * (name != "hls.js")) for name in SCRIPTS]
)
def test_a_player_switches_between_the_upload_and_a_rung(instant: Server, regular: str, name: str) -> None:
    started = play(instant, regular, None).json()
    with player(name) as screen:
        screen.start(str(started["hls_url" if name == "hls.js" else "dash_url"]))
        screen.wait_until_past(1.0)
        assert sorted(screen.do("heights")) == [120, 240, 360]
        for place in (21.0, 5.5, 12.3):
            screen.seek(place)
            screen.wait_until_past(place + 0.4)
        screen.seek(1)
        for height in (360, 120, 360, 240, 360):
            screen.switch(height)
        assert any("/source/" in url and url.endswith(".m4s") for url in screen.requested)
        # Back in a segment that stands alone, hls.js takes it for ending later (by the reorder delay that the edit list takes
        # away), fetches it once more, and says that this was for nothing.
        assert [problem for problem in screen.problems() if problem.strip() != "bufferAppendNoProgress"] == []
        assert screen.longest_stall() < 4


def test_sound_that_players_do_not_take_is_encoded_beside_the_upload(instant: Server, tmp_path: Path) -> None:
    source = by_ffmpeg(tmp_path, "ac3.mp4", *moving(9), *tone(9), "-c:v", "libx264", "-g", "50", "-c:a", "ac3")
    asset_id = upload(instant, source, visibility="public")
    found = wait_final(instant, asset_id)
    assert (found["state"], found["source"]["mode"]) == ("ready", "passthrough")
    base = play(instant, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
    shown, original = times(f"{base}source/playlist.m3u8", "v"), times(source, "v")
    assert [time - shown[0] for time in shown] == pytest.approx([time - original[0] for time in original], abs=0.001)
    sound = probe(f"{base}audio-1/playlist.m3u8", "-show_entries", "stream=codec_name")["streams"]
    assert [stream["codec_name"] for stream in sound] == ["aac"]
    assert times(f"{base}audio-1/playlist.m3u8", "a")[-1] == pytest.approx(9, abs=0.1)


def test_matroska_is_served_as_it_is_with_sound_of_both_kinds(instant: Server, natural: Path, tmp_path: Path) -> None:
    """One track of sound passes through, the other is encoded to its end, though no track of such a file says where that is."""
    copied = ("-i", str(natural), "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", "-c:a:1", "ac3")
    source = by_ffmpeg(tmp_path, "film.mkv", *copied)
    asset_id = upload(instant, source, visibility="public")
    found = wait_final(instant, asset_id)
    assert (found["state"], found["source"]["mode"], found["warnings"]) == ("ready", "passthrough", [])
    assert list(renditions(found)) == ["source", "120p", "240p", "audio-1", "audio-2"]
    base = play(instant, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
    picture, sound = times(source, "v"), times(source, "a")
    assert times(f"{base}source/playlist.m3u8", "v") == pytest.approx(picture, abs=0.001)
    assert times(f"{base}120p/playlist.m3u8", "v") == pytest.approx([0.0, *picture[1:]], abs=0.002)
    heard = times(f"{base}audio-1/playlist.m3u8", "a")
    assert len(heard) == pytest.approx(len(sound), abs=1)
    assert abs(heard[-1] - sound[-1]) < TOGETHER_S
    assert times(f"{base}audio-2/playlist.m3u8", "a")[-1] == pytest.approx(sound[-1], abs=0.05)


def test_a_transport_stream_is_stored_as_players_need_it_and_served(
    instant: Server, natural: Path, tmp_path: Path
) -> None:
    """Beside the upload, from which the smaller renditions are encoded, cut at the same times."""
    source = by_ffmpeg(tmp_path, "film.ts", "-i", str(natural), "-c", "copy")
    asset_id = upload(instant, source, visibility="public")
    found = wait_final(instant, asset_id)
    assert (found["state"], found["source"]["mode"], found["warnings"]) == ("ready", "passthrough", [])
    assert "stored once more" in found["source"]["reason"]
    base = play(instant, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
    picture, sound = times(source, "v"), times(source, "a")
    begin = min(picture[0], sound[0])
    shown = times(f"{base}source/playlist.m3u8", "v")
    assert [time - shown[0] for time in shown] == pytest.approx([time - picture[0] for time in picture], abs=0.001)
    assert times(f"{base}120p/playlist.m3u8", "v")[1:] == pytest.approx(
        [time - begin for time in picture[1:]], abs=0.002
    )
    heard = times(f"{base}audio-1/playlist.m3u8", "a")
    assert len(heard) == pytest.approx(len(sound), abs=1)
    assert abs((heard[-1] - shown[-1]) - (sound[-1] - picture[-1])) < TOGETHER_S
    stored = [key for key in keys(instant, f"assets/{asset_id}") if "/remuxed/" in key]
    assert 0.8 * source.stat().st_size < sum(len(content(instant, key)) for key in stored) < source.stat().st_size
    with instant.admin() as http:
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code in {202, 204}
    wait_for(lambda: not set(stored) & set(keys(instant, f"assets/{asset_id}")), 20)


OTHERS = {
    "film.mkv": ("-c:v", "copy", "-c:a", "libopus"),
    # So small that there is no rung beside it: of two codings Shaka takes the one that needs less.
    "film.webm": ("-s", "160x90", "-c:v", "libsvtav1", "-preset", "12", "-g", "50", "-c:a", "libopus"),
    "film.ts": ("-c", "copy"),
}


@pytest.mark.browser
@pytest.mark.once
@pytest.mark.parametrize(("name", "file"), [("dash.js", "film.mkv"), ("Shaka", "film.webm"), ("hls.js", "film.ts")])
def test_a_player_plays_and_seeks_in_films_of_other_containers(
    instant: Server, natural: Path, tmp_path: Path, name: str, file: str
) -> None:
    source = by_ffmpeg(tmp_path, file, "-i", str(natural), "-t", "12", *OTHERS[file])
    asset_id = upload(instant, source, visibility="public")
    found = wait_playable(instant, asset_id)
    assert found["source"]["mode"] == "passthrough"
    started = play(instant, asset_id, None).json()
    with player(name) as screen:
        screen.start(str(started["hls_url" if name == "hls.js" else "dash_url"]))
        screen.wait_until_past(1.0)
        for place in (8.5, 4.2):
            screen.seek(place)
            screen.wait_until_past(place + 0.4)
        if file != "film.webm":
            screen.switch(360)
        assert any("/source/" in url for url in screen.requested)
        assert screen.shown() > 25
        assert screen.problems() == []


def test_what_no_player_takes_is_encoded_and_says_why(instant: Server, tmp_path: Path) -> None:
    source = by_ffmpeg(tmp_path, "old.mp4", *moving(5), "-c:v", "mpeg4")
    asset_id = upload(instant, source, visibility="public")
    found = wait_final(instant, asset_id)
    assert (found["state"], found["source"]["mode"]) == ("ready", "encode")
    assert len(found["source"]["reason"]) > 10
    assert "source" not in renditions(found)


def test_the_gate_stands_before_the_uploaded_bytes(instant: Server, tmp_path: Path) -> None:
    source = film(tmp_path, seconds=9)
    asset_id = upload_bytes(instant, source.read_bytes())
    wait_playable(instant, asset_id)
    assert problem(play(instant, asset_id, None))[0] in {401, 404}
    started = play(instant, asset_id, instant.admin_key).json()
    segment = started["hls_url"].replace("master.m3u8", "source/0.m4s")
    assert httpx.get(segment).status_code == 200
    with instant.admin() as http:
        assert http.delete(f"/api/v1/playback/{started['session_id']}").status_code == 204
    assert httpx.get(segment).status_code == 403


def test_nothing_is_stored_twice(instant: Server, served: str, natural: Path) -> None:
    wait_final(instant, served)
    assert asset(instant, served)["progress"] == 1
    kept = keys(instant, f"assets/{served}")
    assert kept
    assert not [key for key in kept if "/source/" in key and key.endswith(".m4s")]
