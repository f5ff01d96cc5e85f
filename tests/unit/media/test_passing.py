"""What of an upload passes through, by a plan made in a confined child, and why the rest does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.media.model import Grown, LadderSettings, Limits
from streamgate.media.sandbox import Sandbox
from tests.support.films import by_ffmpeg, moving, tone
from tools.fuzz import Bytes

LADDER = LadderSettings(rungs=(120,), preset="ultrafast", passthrough=True)
FIRST_BYTES = 1024
"""What is read of a key frame, to see whether it is one."""

CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac")


class Far(Bytes):
    """A source of which the child gets what it asks the server for, as of one in an object store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = None
        self._data = path.read_bytes()
        self.asked = 0
        self.ranges: list[tuple[int, int]] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.asked += length
        self.ranges.append((offset, length))
        return self._data[offset : offset + length]


@pytest.mark.parametrize("flags", ["+faststart", "+frag_keyframe+empty_moov", "+dash+frag_keyframe+delay_moov"])
async def test_mp4_passes_whole_or_in_fragments(sandbox: Sandbox, tmp_path: Path, flags: str) -> None:
    path = by_ffmpeg(tmp_path, "film.mp4", *moving(9), *tone(9), *CODED, "-movflags", flags)
    plan = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60)
    passing = {rendition.name: rendition for rendition in plan.renditions if rendition.passthrough is not None}
    assert set(passing) == {"source", "audio-1"}
    rung = next(rendition for rendition in plan.renditions if rendition.name == "120p")
    source = passing["source"]
    cuts = [tick / source.timescale for tick in source.boundaries]
    # Without an edit list the pictures of a fragmented file begin two frames after its sound.
    assert cuts == pytest.approx([0, 4, 8, 9], abs=0.081)
    assert [tick / rung.timescale for tick in rung.boundaries] == pytest.approx(cuts, abs=0.001)
    assert plan.index


@pytest.mark.parametrize("passthrough", [True, False])
async def test_an_index_is_told_before_the_plan_and_is_the_plan_s(
    sandbox: Sandbox, tmp_path: Path, passthrough: bool
) -> None:
    path = by_ffmpeg(tmp_path, "film.mp4", *moving(9), *tone(9), *CODED)
    plans, far = [], Far(path)
    for source in (far, Bytes(path)):
        told: list[bytes] = []
        ladder = replace(LADDER, passthrough=passthrough)
        plans.append(await sandbox.plan(source, ladder=ladder, limits=Limits(), timeout_s=60, early=told.append))
        assert len(told) == 1
        assert plans[-1].index is told[0]
    assert plans[0] == plans[1], "from afar the same film is seen"
    assert len(set(far.ranges)) == len(far.ranges), "and nothing is fetched twice"


async def test_what_is_wrong_with_a_film_is_said_although_its_index_is_still_read(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    class Slow(Far):
        async def read(self, offset: int, length: int) -> bytes:
            if length == FIRST_BYTES:
                await asyncio.sleep(0.3)
            return await super().read(offset, length)

    film = Slow(by_ffmpeg(tmp_path, "film.mp4", *moving(9, "640x360"), *tone(9), *CODED))
    with pytest.raises(MediaRefused) as refused:
        await sandbox.plan(film, ladder=LADDER, limits=Limits(max_pixels=1000), timeout_s=60)
    assert refused.value.failure.code is FailureCode.TOO_MANY_PIXELS


async def test_an_index_that_does_not_tell_of_the_video_is_not_the_plan_s(sandbox: Sandbox, tmp_path: Path) -> None:
    path = by_ffmpeg(tmp_path, "film.mp4", *moving(3), *tone(3), "-c:v", "mpeg4", "-c:a", "aac")
    told: list[bytes] = []
    plan = await sandbox.plan(Far(path), ladder=LADDER, limits=Limits(), timeout_s=60, early=told.append)
    assert (len(told), plan.index) == (1, b"")


async def test_fragments_that_readers_take_differently_are_encoded(sandbox: Sandbox, tmp_path: Path) -> None:
    flags = ("-movflags", "+cmaf+frag_keyframe+delay_moov")
    path = by_ffmpeg(tmp_path, "film.mp4", *moving(5), *tone(5), *CODED, *flags)
    plan = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60)
    assert {rendition.name for rendition in plan.renditions if rendition.passthrough is not None} == set()
    assert plan.reason == "Pictures are shown before they are decoded; every rendition is encoded."


async def test_opus_passes_beside_sound_that_every_player_takes(sandbox: Sandbox, tmp_path: Path) -> None:
    """Some players lack it: the film begins with what is encoded of the same track, and has it as it is, too."""
    path = by_ffmpeg(tmp_path, "film.mkv", *moving(9), *tone(9), *CODED, "-c:a", "libopus")
    plan = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60)
    found = [(r.name, r.codecs, r.passthrough, r.track) for r in plan.renditions if r.kind == "audio"]
    assert found == [("audio-1", "mp4a.40.2", None, 1), ("audio-1-opus", "opus", 1, 1)]
    assert plan.opening == "audio-1"
    ends = [r.boundaries[-1] / r.timescale for r in plan.renditions if r.kind == "audio"]
    assert ends == pytest.approx([9, 9], abs=0.05)


async def test_matroska_that_breaks_off_passes_and_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    path = by_ffmpeg(tmp_path, "film.mkv", *moving(9), *tone(9), *CODED)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    plan = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60)
    assert {r.name for r in plan.renditions if r.passthrough is not None} == {"source", "audio-1"}
    assert [warning.code for warning in plan.warnings] == ["damaged"]
    assert 5 < plan.duration < 7


async def test_what_was_scanned_while_it_came_is_not_read_again(sandbox: Sandbox, tmp_path: Path) -> None:
    path = by_ffmpeg(tmp_path, "film.mkv", *moving(9, "640x360"), *tone(9), *CODED, "-crf", "1", "-preset", "ultrafast")
    film, room = Far(path), tmp_path / "room"
    room.mkdir()
    there = film.size * 9 // 10
    looked = await sandbox.look(
        film, extents=((0, there),), before=Grown(wanted=0), ladder=LADDER, limits=Limits(), folder=room
    )
    plans, asked = [], []
    for before in (looked, None, Grown(state=b"of another film")):
        film.asked = 0
        plan = await sandbox.plan(film, ladder=LADDER, limits=Limits(), folder=room, before=before)
        plans.append(plan)
        asked.append(film.asked)
    assert plans[0] == plans[1] == plans[2]
    assert asked[0] < asked[1] / 2
    assert asked[2] >= asked[1]


async def test_a_transport_stream_is_written_out_where_there_is_room(sandbox: Sandbox, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    path = by_ffmpeg(tmp_path, "film.ts", *moving(9), *tone(9), *CODED)
    plan = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60, folder=room)
    assert {r.name for r in plan.renditions if r.passthrough is not None} == {"source", "audio-1"}
    assert [file.stat().st_size for file in sorted(room.iterdir())] == list(plan.remuxed)
    without = await sandbox.plan(Bytes(path), ladder=LADDER, limits=Limits(), timeout_s=60)
    assert [r.name for r in without.renditions if r.passthrough is not None] == []
    assert without.reason != plan.reason
    assert without.duration == pytest.approx(plan.duration, abs=0.05)
