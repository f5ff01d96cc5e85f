"""In nine processes, on an object store: a film plays as far as the whole parts of its upload have come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streamgate.indexahead import index_at_end
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.product import TUS, wait_final
from tests.support.sending import BYTES, Sending, listed, wait_listed
from tests.support.server import Server, wait_for
from tests.support.topology import Topology

pytestmark = [pytest.mark.slow, pytest.mark.apart]
SECONDS = 24
BITS = "16M"
"""Each second, padded to it: a part of 8 MiB holds some four seconds."""
CONSTANT = ("-b:v", BITS, "-maxrate", BITS, "-bufsize", BITS, "-x264-params", "nal-hrd=cbr:force-cfr=1")
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "50", *CONSTANT, "-c:a", "aac", "-shortest")
FLAGS = {
    "first.mp4": ("-movflags", "+faststart"),
    "fragments.mp4": ("-movflags", "+frag_keyframe+empty_moov"),
    "film.mkv": (),
    "last.mp4": (),
}


@pytest.fixture(scope="module")
def growing(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"transcoder.rungs": [120], "transcoder.preset": "ultrafast"}
    with topology.serving(tmp_path_factory.mktemp("growing") / "data", settings) as server:
        yield server


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = (*moving(SECONDS, "320x180"), *tone(SECONDS))
    return by_ffmpeg(tmp_path_factory.mktemp("coded"), "coded.mkv", *source, *CODED)


@pytest.mark.parametrize("name", FLAGS)
def test_a_film_plays_as_far_as_its_parts_have_come(growing: Server, coded: Path, tmp_path: Path, name: str) -> None:
    file = by_ffmpeg(tmp_path, name, "-i", str(coded), "-c", "copy", *FLAGS[name])
    sending = Sending(growing, file.read_bytes(), visibility="public")
    assert len(sending.data) > 40 << 20
    if name == "last.mp4":
        index = index_at_end(file)
        assert index is not None
        with sending.http() as http:
            told = TUS | BYTES | {"upload-offset": str(index)}
            assert http.put(f"{sending.path}/index", headers=told, content=sending.data[index:]).status_code == 204
    sending.part(0.8)
    base = sending.base()
    first = wait_listed(base, 2)
    assert sending.state() == "uploading"
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in httpx.get(f"{base}source/playlist.m3u8").text
    kept = {}
    for rendition in ("source", "audio-1"):
        for number in range(len(first)):
            answer = httpx.get(f"{base}{rendition}/{number}.m4s")
            assert answer.status_code == 200, answer.text
            kept[f"{rendition}/{number}.m4s"] = answer.content
    assert httpx.get(f"{base}source/{len(first) + 2}.m4s").status_code == 404
    sending.rest()
    assert wait_final(growing, sending.asset_id)["state"] == "ready"
    wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text, 20)
    assert listed(base)[: len(first)] == first
    assert sum(map(float, listed(base))) == pytest.approx(SECONDS, abs=0.2)
    for path, content in kept.items():
        assert httpx.get(base + path).content == content, path
