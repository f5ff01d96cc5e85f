"""DASH in real players, over the same segments as HLS."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from urllib.parse import urljoin

import httpx
import pytest

from tests.support.dash_players import SCRIPTS, dash_player
from tests.support.product import play, probe
from tests.support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
MPD = "{urn:mpeg:dash:schema:mpd:2011}"


@pytest.fixture
def manifest(shared: Server, ready_film: str) -> str:
    return str(play(shared, ready_film, None).json()["dash_url"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_player_plays_and_seeks(manifest: str, name: str) -> None:
    with dash_player(name) as screen:
        screen.start(manifest)
        screen.wait_until_past(1.0)
        for place in (9.0, 3.0, 11.5):
            screen.seek(place)
            screen.wait_until_past(place + 0.5)
        assert screen.shown() > 30
        assert screen.problems() == []


def test_every_address_of_the_manifest_is_there(manifest: str) -> None:
    with httpx.Client() as http:
        root = ET.fromstring(http.get(manifest).text)
        for adaptation in root.iter(f"{MPD}AdaptationSet"):
            count = sum(int(entry.get("r", "0")) + 1 for entry in adaptation.iter(f"{MPD}S"))
            for representation in adaptation.iter(f"{MPD}Representation"):
                base = representation.attrib["id"]
                for path in (f"{base}/init.mp4", f"{base}/0.m4s", f"{base}/{count - 1}.m4s"):
                    assert http.get(urljoin(manifest, path)).status_code == 200, path
                assert http.get(urljoin(manifest, f"{base}/{count}.m4s")).status_code == 404


def test_another_reader_finds_every_frame(manifest: str) -> None:
    streams = probe(manifest, "-count_frames", "-show_entries", "stream=codec_type,nb_read_frames,height")["streams"]
    pictures = {stream["height"]: stream["nb_read_frames"] for stream in streams if stream["codec_type"] == "video"}
    assert pictures == {240: "390", 360: "390"}
