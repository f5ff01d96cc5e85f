"""What other people's readers make of the served HLS."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.beats import beats_heard, beats_seen
from tests.support.films import film
from tests.support.product import play, probe, upload, wait_final
from tests.support.server import Server

RENDITIONS = ("240p", "360p")


@pytest.fixture(scope="module")
def served(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A film as uploaded, and the address of its HLS."""
    source = film(tmp_path_factory.mktemp("films"), seconds=13, width=640, height=360)
    asset_id = upload(shared, source, visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    return source, str(play(shared, asset_id, None).json()["hls_url"])


def packets(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = probe(url, "-show_entries", "packet=pts_time,dts_time,flags,duration_time")["packets"]
    return found


def rendition(url: str, name: str) -> str:
    return url.replace("master.m3u8", f"{name}/playlist.m3u8")


@pytest.mark.parametrize("name", RENDITIONS)
def test_every_frame_of_the_source_is_there_once(served: tuple[Path, str], name: str) -> None:
    source, url = served
    count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
    frames = int(probe(str(source), *count)["streams"][0]["nb_read_frames"])
    assert frames == 13 * 30
    assert int(probe(rendition(url, name), *count)["streams"][0]["nb_read_frames"]) == frames


@pytest.mark.parametrize("name", [*RENDITIONS, "audio-1"])
def test_timestamps_only_grow(served: tuple[Path, str], name: str) -> None:
    found = packets(rendition(served[1], name))
    decoding = [float(packet["dts_time"]) for packet in found]
    assert decoding == sorted(set(decoding))
    shown = sorted(float(packet["pts_time"]) for packet in found)
    assert len(set(shown)) == len(shown)
    steps = [after - before for before, after in pairwise(shown)]
    assert max(steps) - min(steps) < 0.001
    assert abs(shown[0]) < 0.001


def test_key_frames_stand_at_the_same_times_in_every_rendition(served: tuple[Path, str]) -> None:
    keys = [
        [packet["pts_time"] for packet in packets(rendition(served[1], name)) if "K" in packet["flags"]]
        for name in RENDITIONS
    ]
    assert keys[0] == keys[1]
    assert [float(time) for time in keys[0]] == [0, 4, 8, 12]


def test_sound_lasts_as_long_as_the_picture(served: tuple[Path, str]) -> None:
    sound = packets(rendition(served[1], "audio-1"))
    end = float(sound[-1]["pts_time"]) + float(sound[-1]["duration_time"])
    assert abs(end - 13) < 0.05


def test_ffmpeg_decodes_all_of_it_without_a_complaint(served: tuple[Path, str]) -> None:
    command = ["ffmpeg", "-v", "warning", "-xerror", "-i", served[1], "-map", "0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower(), done.stderr


def test_a_poster_is_a_picture_of_the_film(served: tuple[Path, str]) -> None:
    found = probe(served[1].replace("master.m3u8", "poster.jpg"), "-show_entries", "stream=codec_name,width,height")
    assert found["streams"] == [{"codec_name": "mjpeg", "width": 640, "height": 360}]


def test_sound_and_picture_are_in_step_within_ten_milliseconds(shared: Server, tmp_path: Path) -> None:
    asset_id = upload(shared, film(tmp_path, seconds=9, beats=True), visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    url = str(play(shared, asset_id, None).json()["hls_url"])
    joined = tmp_path / "joined.mkv"
    command = ["ffmpeg", "-v", "error", "-i", url, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", str(joined)]
    subprocess.run(command, check=True, timeout=60)
    seen, heard = beats_seen(joined), beats_heard(joined)
    assert len(seen) == len(heard) == 5
    assert max(abs(a - b) for a, b in zip(seen, heard, strict=True)) < 0.010
