"""The ladder of a film that nobody watches is dropped; the film plays all the same, and the ladder comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.films import by_ffmpeg, moving, tone
from tests.support.inside import keys
from tests.support.product import asset, play, upload_bytes, wait_final
from tests.support.server import Server, wait_for
from tests.support.topology import Topology

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SETTINGS = {"transcoder.rungs": [120, 240], "transcoder.preset": "ultrafast"}
AT_ONCE = {"transcoder.cold_days": 0.000_001}
YEARS = {"transcoder.cold_days": 1000}
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac", "-shortest")


def segments(server: Server, asset_id: str, rendition: str) -> list[str]:
    """Stored segments of a rendition."""
    return [key for key in keys(server, f"assets/{asset_id}") if f"/{rendition}/" in key and key.endswith(".m4s")]


def renditions(found: dict[str, Any]) -> dict[str, str]:
    return {rendition["name"]: rendition["state"] for rendition in found["renditions"]}


def watch(server: Server, asset_id: str, names: list[str]) -> None:
    """Fetch every segment of some renditions."""
    base = play(server, asset_id, server.admin_key).json()["hls_url"].removesuffix("master.m3u8")
    for name in names:
        count = httpx.get(f"{base}{name}/playlist.m3u8").text.count("#EXTINF")
        assert count > 2
        for number in range(count):
            assert httpx.get(f"{base}{name}/{number}.m4s", timeout=60).status_code == 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_ffmpeg(tmp_path_factory.mktemp("source"), "film.mp4", *moving(14, "428x240"), *tone(14), *CODED)


def keep(server: Server, asset_id: str, days: float) -> None:
    """Give the film days of its own."""
    with server.admin() as http:
        answer = http.patch(f"/api/v1/assets/{asset_id}", json={"cold_days": days})
    assert (answer.status_code, answer.json()["cold_days"]) == (200, days)


@pytest.mark.parametrize(
    "passthrough", [True, False], ids=["passthrough-by-its-own-days", "encoded-by-the-servers-days"]
)
def test_a_ladder_that_nobody_watches_goes_and_comes_back(
    topology: Topology, tmp_path: Path, source: Path, passthrough: bool
) -> None:
    settings = SETTINGS | {"transcoder.passthrough": passthrough}
    rungs = ["120p"] if passthrough else ["120p", "240p"]
    with topology.starting(tmp_path / "data") as start:
        server = start(settings | YEARS)
        asset_id = upload_bytes(server, source.read_bytes())
        ready = wait_final(server, asset_id)
        assert ready["state"] == "ready"
        assert all(segments(server, asset_id, name) for name in rungs)
        if passthrough:
            keep(server, asset_id, AT_ONCE["transcoder.cold_days"])
        server = start(settings | ({} if passthrough else AT_ONCE))
        left = 0 if passthrough else 1
        wait_for(lambda: len([key for name in rungs for key in segments(server, asset_id, name)]) == left)
        cold = wait_for(lambda: (found := asset(server, asset_id))["renditions"] != ready["renditions"] and found)
        assert (cold["state"], cold["playable"], cold["progress"]) == ("ready", True, 1.0)
        assert renditions(cold)[rungs[-1]] == "pending"
        if passthrough:
            keep(server, asset_id, 0)
        server = start(settings | (AT_ONCE if passthrough else YEARS))
        assert asset(server, asset_id)["renditions"] == cold["renditions"]
        watch(server, asset_id, [*rungs, "audio-1"])
        again = wait_for(lambda: (found := asset(server, asset_id))["renditions"] == ready["renditions"] and found)
        assert (again["state"], again["playable"]) == ("ready", True)
