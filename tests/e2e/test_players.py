"""A film in two languages with captions, in three players: play, seek, switch, read, and look ahead."""

from __future__ import annotations

import math
import random
import re
from urllib.parse import urljoin

import httpx
import pytest

from tests.support.manifest_checks import MPD, check_hls, check_mpd
from tests.support.players import SCRIPTS, player
from tests.support.product import asset, play, probe
from tests.support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(180)]
SECONDS = 26
SEGMENT_S = 4.0


def address(server: Server, asset_id: str, name: str) -> str:
    return str(play(server, asset_id, None).json()["hls_url" if name == "hls.js" else "dash_url"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_player_plays_seeks_switches_and_shows_captions(shared: Server, spoken: str, name: str) -> None:
    places = random.Random(name)
    with player(name) as screen:
        screen.start(address(shared, spoken, name))
        screen.wait_until_past(1.0)
        assert sorted(screen.do("heights")) == [240, 360]
        assert sorted(screen.do("languages")) == ["de", "en"]
        assert screen.do("speaking") == "en"
        for place in [places.uniform(0, SECONDS - 3) for _ in range(10)]:
            screen.seek(place)
            screen.wait_until_past(place + 0.4)
        screen.seek(1)
        for height in (360, 240, 360):
            screen.switch(height)
        screen.seek(12)
        screen.do("language", "de")
        screen.wait_until_past(14)
        assert screen.do("speaking") == "de"
        assert any("/audio-2/" in url and url.endswith(".m4s") for url in screen.requested)
        screen.do("captions", "en")
        screen.wait_for_caption("of two", before=4.6)
        assert screen.shown() > 60
        assert screen.problems() == []
        assert screen.longest_stall() < SEGMENT_S


def test_the_storyboard_shows_where_a_seek_would_go(shared: Server, spoken: str) -> None:
    started = play(shared, spoken, None).json()
    with player("Shaka") as screen:
        screen.start(started["dash_url"])
        found = screen.do("thumbnail", started["storyboard_url"], 13.0)
        assert (found["x"], found["y"], found["width"], found["height"]) == (160, 90, 160, 90)
        assert screen.image_size(found["uri"]) == (800, 270)
    text = httpx.get(started["storyboard_url"]).text
    assert text.startswith("WEBVTT\n")
    assert text.count("storyboard/0.jpg#xywh=") == math.ceil(asset(shared, spoken)["duration"] / 2)


def test_the_manifests_keep_the_rules_and_name_only_what_is_there(shared: Server, spoken: str) -> None:
    started = play(shared, spoken, None).json()
    with httpx.Client() as http:
        found = check_hls(
            started["hls_url"],
            lambda url: http.get(url).raise_for_status().text,
            lambda url: http.get(url).status_code == 200,
        )
        for playlist, media in found.items():
            assert abs(media.duration - SECONDS) < 0.1, playlist
        assert len(found) == 2 + 2 + 2 + 2
        root = check_mpd(http.get(started["dash_url"]).raise_for_status().text)
        kinds = [(a.get("contentType"), a.get("lang")) for a in root.iter(f"{MPD}AdaptationSet")]
        assert kinds == [("video", None), ("audio", "en"), ("audio", "de"), ("text", "en"), ("text", "de")]
        for adaptation in root.iter(f"{MPD}AdaptationSet"):
            for representation in adaptation.iter(f"{MPD}Representation"):
                base = representation.find(f"{MPD}BaseURL")
                path = base.text if base is not None else f"{representation.get('id')}/init.mp4"
                assert http.get(urljoin(started["dash_url"], path or "")).status_code == 200
        captions = http.get(urljoin(started["hls_url"], "captions/en.vtt"))
        assert captions.headers["content-type"] == "text/vtt; charset=utf-8"
        assert "Hello <b>there</b> &amp; welcome" in captions.text


def test_key_frames_are_there_alone(shared: Server, spoken: str) -> None:
    base = play(shared, spoken, None).json()["hls_url"].removesuffix("master.m3u8")
    with httpx.Client() as http:
        playlist = http.get(f"{base}240p/iframes.m3u8").text
        segments = re.findall(r"^(\d+\.iframe\.m4s)$", playlist, re.MULTILINE)
        assert len(segments) == 7
        init = http.get(f"{base}240p/init.mp4").content
        for number, name in enumerate(segments):
            alone = http.get(f"{base}240p/{name}").content
            assert len(alone) < len(http.get(f"{base}240p/{number}.m4s").content)
            shown = probe("-", "-show_entries", "frame=pict_type,key_frame,pts_time", feed=init + alone)["frames"]
            assert [(f["pict_type"], f["key_frame"], float(f["pts_time"])) for f in shown] == [
                ("I", 1, pytest.approx(SEGMENT_S * number, abs=0.03))
            ]
        for path in (
            "audio-1/iframes.m3u8",
            "audio-1/0.iframe.m4s",
            "240p/9.iframe.m4s",
            "captions/fr.vtt",
            "captions/fr/playlist.m3u8",
            "captions/en.m3u8",
            "storyboard/9.jpg",
        ):
            assert http.get(base + path).status_code == 404, path


def test_another_reader_finds_every_frame_by_dash(shared: Server, ready_film: str) -> None:
    manifest = address(shared, ready_film, "dash.js")
    streams = probe(manifest, "-count_frames", "-show_entries", "stream=codec_type,nb_read_frames,height")["streams"]
    pictures = {stream["height"]: stream["nb_read_frames"] for stream in streams if stream["codec_type"] == "video"}
    assert pictures == {240: "390", 360: "390"}
