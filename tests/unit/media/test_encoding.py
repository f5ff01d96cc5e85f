"""Films of every shape become renditions that every reader agrees about."""

from __future__ import annotations

import io
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import av
import pytest

from streamgate.media.model import LadderSettings
from streamgate.media.sandbox import Sandbox
from tests.support.beats import beats_heard, beats_seen
from tests.support.conformance_media import check_rendition
from tests.support.encoding import FileSource, encode, encode_chunks, plan
from tests.support.films import BEAT_S, film, frame_count

SHAPES: dict[str, dict[str, Any]] = {
    "an ordinary one": {"seconds": 9},
    "no B-frames": {"b_frames": 0},
    "three B-frames": {"b_frames": 3},
    "in Matroska": {"container": "mkv"},
    "in QuickTime": {"container": "mov"},
    "mono": {"audio": "mono"},
    "no sound": {"audio": None},
    "uneven frame times": {"jitter": True},
    "odd sizes": {"width": 355, "height": 201, "codec": "mpeg4", "b_frames": 0},
    "upright": {"width": 200, "height": 360},
    "cinema rate": {"fps": 24},
    "very short": {"seconds": 0.5},
    "of one picture": {"seconds": 0.03, "audio": None},
}


def read_by_ffprobe(path: Path, *entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *entries, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", SHAPES)
async def test_a_film_is_whole_in_every_rendition(sandbox: Sandbox, films: Path, tmp_path: Path, name: str) -> None:
    source = film(films, **SHAPES[name])
    made = await encode(sandbox, source, tmp_path / "out")
    frames = frame_count(source)
    keys = []
    for rendition in made.plan.renditions:
        check_rendition(rendition, made.segments[rendition.name])
    for rendition in made.video:
        path = made.files[rendition.name]
        read = read_by_ffprobe(path, "-count_frames", "-show_entries", "stream=nb_read_frames,width,height,pix_fmt")
        (stream,) = read["streams"]
        assert int(stream["nb_read_frames"]) == frames
        assert (stream["width"], stream["height"], stream["pix_fmt"]) == (rendition.width, rendition.height, "yuv420p")
        packets = read_by_ffprobe(path, "-show_entries", "packet=pts_time,dts_time,flags")["packets"]
        decoding = [float(packet["dts_time"]) for packet in packets]
        assert decoding == sorted(set(decoding))
        keys.append([packet["pts_time"] for packet in packets if "K" in packet["flags"]])
    assert all(found == keys[0] for found in keys)
    assert len(made.audio) == (0 if SHAPES[name].get("audio", "stereo") is None else 1)
    aspect = made.plan.width / made.plan.height if made.plan.width and made.plan.height else 0
    for rendition in made.video:
        assert rendition.width is not None
        assert rendition.height is not None
        assert rendition.width % 2 == rendition.height % 2 == 0
        assert abs(rendition.width / rendition.height - aspect) < 0.03


async def test_every_frame_keeps_its_time(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    source = film(films, jitter=True)
    made = await encode(sandbox, source, tmp_path / "out")
    with av.open(str(source)) as container:
        begin = container.streams.video[0].start_time or 0
        base = container.streams.video[0].time_base
        wanted = [float((frame.pts - begin) * base) for frame in container.decode(video=0)]
    with av.open(str(made.files[made.video[0].name])) as container:
        found = [float(frame.time) for frame in container.decode(video=0)]
    assert len(found) == len(wanted)
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 0.001


async def test_fast_films_are_thinned_to_sixty_frames(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    made = await encode(sandbox, film(films, fps=120, seconds=3, audio=None), tmp_path / "out")
    check_rendition(made.video[0], made.segments[made.video[0].name])
    assert frame_count(made.files[made.video[0].name]) == 180


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_the_picture_stands_upright(sandbox: Sandbox, films: Path, tmp_path: Path, degrees: int) -> None:
    made = await encode(sandbox, film(films, seconds=1, rotation=degrees, audio=None), tmp_path / "out")
    rendition = made.video[-1]
    sideways = degrees in {90, 270}
    assert (
        (rendition.width or 0) < (rendition.height or 0)
        if sideways
        else (rendition.width or 0) > (rendition.height or 0)
    )
    with av.open(str(made.files[rendition.name])) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="gray")
    height, width = frame.shape
    corners = {
        "upper left": frame[: height // 16, : width // 16],
        "upper right": frame[: height // 16, -width // 16 :],
        "lower right": frame[-height // 16 :, -width // 16 :],
        "lower left": frame[-height // 16 :, : width // 16],
    }
    brightest = max(corners, key=lambda corner: float(corners[corner].mean()))
    assert brightest == {90: "upper right", 180: "lower right", 270: "lower left"}[degrees]


async def test_sound_alone_plays(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    made = await encode(sandbox, film(films, video=False, seconds=9), tmp_path / "out")
    assert [(rendition.kind, rendition.name) for rendition in made.plan.renditions] == [
        ("audio", "audio-1-64k"),
        ("audio", "audio-1"),
    ]
    assert made.audio[0].bandwidth < made.audio[1].bandwidth
    assert (made.plan.width, made.plan.height) == (None, None)
    check_rendition(made.audio[0], made.segments[made.audio[0].name])
    read = read_by_ffprobe(made.files[made.audio[0].name], "-show_entries", "stream=duration,sample_rate,channels")
    assert read["streams"][0]["sample_rate"] == "48000"


@pytest.mark.parametrize("container", ["mp4", "mkv"])
async def test_sound_and_picture_are_in_step_within_ten_milliseconds(
    sandbox: Sandbox, films: Path, tmp_path: Path, container: str
) -> None:
    made = await encode(sandbox, film(films, seconds=13, beats=True, container=container), tmp_path / "out")
    seen = beats_seen(made.files[made.video[0].name])
    heard = beats_heard(made.files[made.audio[0].name])
    assert len(seen) == len(heard) == math.ceil(13 / BEAT_S)
    assert max(abs(a - b) for a, b in zip(seen, heard, strict=True)) < 0.010
    assert max(abs(time - number * BEAT_S) for number, time in enumerate(seen)) < 0.010


async def test_a_chunk_is_the_same_bytes_whenever_and_with_whomever_it_is_made(
    sandbox: Sandbox, films: Path, tmp_path: Path
) -> None:
    path = film(films, seconds=13)
    source, made = FileSource(path), await plan(sandbox, path)
    names = tuple(rendition.name for rendition in made.renditions)
    together = await encode_chunks(sandbox, source, made, range(1, 3), names, tmp_path / "a")
    assert await encode_chunks(sandbox, source, made, range(1, 3), names, tmp_path / "b") == together
    for name in names:
        alone = await encode_chunks(sandbox, source, made, range(1, 3), (name,), tmp_path / f"alone-{name}")
        assert alone == {key: value for key, value in together.items() if key[0] == name}


async def test_a_film_that_can_only_be_had_by_ranges_is_the_same(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    path = film(films, seconds=9)
    by_path = await encode(sandbox, path, tmp_path / "a")
    by_range = await encode(sandbox, path, tmp_path / "b", by_path=False)
    assert by_range.plan == by_path.plan
    assert by_range.segments == by_path.segments


async def test_there_is_no_seam_in_the_sound(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    path = film(films, seconds=17)
    made = await encode(sandbox, path, tmp_path / "out")
    wanted, found = samples(path), samples(made.files[made.audio[0].name])
    size = min(len(wanted), len(found))
    assert abs(len(wanted) - len(found)) < 3000
    rendition = made.audio[0]
    noise = [abs(a - b) for a, b in zip(wanted[:size], found[:size], strict=True)]
    everywhere = sum(noise) / size
    for boundary in rendition.boundaries[1:-1]:
        near = noise[boundary - 1500 : boundary + 1500]
        assert sum(near) / len(near) < 2 * everywhere + 0.002, f"at sample {boundary}"
        assert max(near) < 0.2


def samples(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(v) for frame in container.decode(audio=0) for v in frame.to_ndarray()[0]]


async def test_the_ladder_fits_the_film(sandbox: Sandbox, films: Path) -> None:
    ladder = LadderSettings(rungs=(120, 240, 360, 720, 1080))
    made = await plan(sandbox, film(films, seconds=1), ladder)
    sizes = [(r.width, r.height) for r in made.renditions if r.kind == "video"]
    assert sizes == [(214, 120), (426, 240), (640, 360)]
    upright = await plan(sandbox, film(films, seconds=1, width=200, height=360), ladder)
    assert [r.width for r in upright.renditions if r.kind == "video"] == [120, 200]
    rates = [r.bandwidth for r in made.renditions if r.kind == "video"]
    assert rates == sorted(rates)


async def test_a_poster_is_a_picture_and_no_black_one(sandbox: Sandbox, films: Path) -> None:
    path = film(films, seconds=6, rotation=90, audio=None)
    made = await plan(sandbox, path)
    for at_s in (None, 0.0, 5.9):
        jpeg = await sandbox.poster(FileSource(path), made, at_s=at_s, width=200)
        with av.open(io.BytesIO(jpeg)) as container:
            frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (200, 356)
        assert 30 < float(frame.to_ndarray(format="gray").mean()) < 225
