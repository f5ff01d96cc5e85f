"""Two hours of film, seconds after their upload, in every player, while the ladder is still being made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.films import by_ffmpeg, moving, tone
from tests.support.players import SCRIPTS
from tests.support.product import asset, play, upload_bytes
from tests.support.server import Server, serving, wait_for
from tests.support.tour import tour

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.once, pytest.mark.timeout(180)]

MINUTES = 120
WAIT_S = 15.0
"""Generous, as the machine encodes beside it and may have other work: how long it takes is measured by ``make bench-seeks``."""

SETTINGS = {"transcoder.rungs": [120, 240], "transcoder.preset": "ultrafast"}
CODED = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "40", "-bf", "3", "-g", "100", "-c:a", "aac", "-b:a", "32k")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("long") / "data", SETTINGS) as server:
        yield server


@pytest.fixture(scope="module")
def fresh(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty seconds, over and over for two hours by copying their packets."""
    folder = tmp_path_factory.mktemp("source")
    part = by_ffmpeg(folder, "part.mp4", *moving(20, "428x240"), *tone(20), *CODED, "-ac", "1", "-shortest")
    again = ("-stream_loop", str(MINUTES * 3 - 1), "-i", str(part), "-c", "copy", "-movflags", "+faststart")
    film = by_ffmpeg(folder, "film.mp4", *again)
    asset_id = upload_bytes(server, film.read_bytes(), visibility="public")
    film.unlink()
    wait_for(lambda: asset(server, asset_id)["state"] == "processing")
    return asset_id


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_place_of_a_fresh_film_plays_at_once(server: Server, fresh: str, name: str) -> None:
    found = asset(server, fresh)
    assert (found["state"], found["source"]["mode"]) == ("processing", "passthrough")
    assert found["duration"] == pytest.approx(MINUTES * 60, rel=0.01)
    started = play(server, fresh, None).json()
    url = str(started["hls_url" if name == "hls.js" else "dash_url"])
    seen = tour(name, url, found["duration"], seeks=6, switches=(120, 240))
    assert seen.problems == ()
    assert seen.requested >= {"source", "120p", "audio-1"}
    assert len(seen.seeks_s) == 6
    assert max(seen.start_s, *seen.seeks_s, seen.stall_s) < WAIT_S
    assert asset(server, fresh)["state"] == "processing"
