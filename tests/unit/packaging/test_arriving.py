"""An index read while the file still arrives tells of what is there exactly what the whole file's will."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from streamgate.packaging.arriving import Arriving, fragments_follow, wanted_for_index
from streamgate.packaging.growingmatroska import index_so_far
from streamgate.packaging.matroskaindex import index_matroska
from streamgate.packaging.sampleindex import IndexedTrack, IndexRefused, SourceIndex, index_mp4
from streamgate.packaging.segments import StoredIndex, assemble
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.mp4_edit import box, changed
from tests.support.passed import Bytes, Passed, passed

SECONDS = 21
CODED = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-sc_threshold", "0", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "64k")


@pytest.fixture(scope="module")
def whole(films: Path) -> bytes:
    """A key frame each second, the index first, the media behind it."""
    first = ("-movflags", "+faststart")
    return by_ffmpeg(films, "arriving.mp4", *moving(SECONDS), *tone(SECONDS), *CODED, *AAC, *first).read_bytes()


@pytest.fixture(scope="module")
def last(films: Path) -> bytes:
    return by_ffmpeg(films, "last.mp4", *moving(3), *tone(3), *CODED, *AAC).read_bytes()


def arriving(data: bytes, arrived: int, before: Arriving | None = None, looked_at: int = 0) -> Arriving:
    """``arrived`` bytes of a file; whoever reads others fails."""
    there = Bytes(data[:arrived])

    def read(offset: int, length: int) -> bytes:
        assert offset + length <= arrived, "bytes that have not arrived were read"
        return there(offset, length)

    return Arriving(read, len(data), [(0, arrived)], looked_at, before.lies if before is not None else ())


def tracks(index: SourceIndex) -> list[IndexedTrack]:
    return [*([index.video] if index.video is not None else []), *index.audio]


def there(track: IndexedTrack, arrived: int) -> int:
    return sum(int(end) <= arrived for end in track.needed)


def segments(data: bytes, arrived: int, index: SourceIndex, track: IndexedTrack, count: int) -> list[bytes]:
    stored = StoredIndex.load(index.blob, len(data))
    return [assemble(stored.segment(track.number, n), Bytes(data[:arrived])) for n in range(count)]


def steps(data: bytes, count: int = 24) -> list[int]:
    begin = data.index(b"mdat") + 4
    return [begin + (len(data) - begin) * n // count for n in range(1, count + 1)]


def test_segments_that_are_there_are_those_of_the_whole_file(whole: bytes) -> None:
    final = passed(whole)
    listed = 0
    for arrived in steps(whole):
        index = index_mp4(arriving(whole, arrived), len(whole))
        assert index.refused == ()
        for track, after in zip(tracks(index), tracks(final.index), strict=True):
            count = there(track, arrived)
            assert track.boundaries[: count + 1] == after.boundaries[: count + 1]
            assert track.init == after.init
            assert segments(whole, arrived, index, track, count) == final.segments(after)[:count]
            listed += count
    assert there(final.index.video, len(whole)) == len(final.index.video.boundaries) - 1 == 6
    assert listed > 100


def agreeing(data: bytes, arrived: int, index: SourceIndex, final: Passed) -> list[int]:
    """How many segments of each track are there for good, all of which must be those of the whole file."""
    counts = []
    for track, after in zip(tracks(index), tracks(final.index), strict=True):
        count = max(0, min(there(track, arrived), len(track.needed) - 2))
        assert track.boundaries[: count + 1] == after.boundaries[: count + 1]
        assert track.init == after.init
        assert segments(data, arrived, index, track, count) == final.segments(after)[:count]
        counts.append(count)
    return counts


def so_far(read: Arriving) -> SourceIndex | None:
    """The index as far as it is there; None while a track has no sample."""
    try:
        index = index_mp4(read, read.size)
    except IndexRefused as refused:
        if refused.code == "table_short":
            return None
        raise
    assert {code for _, code, _ in index.refused} <= {"table_short"}
    return None if index.refused else index


@pytest.mark.parametrize("flags", ["+frag_keyframe+empty_moov", "+dash+frag_keyframe+delay_moov", "+frag_keyframe"])
def test_fragments_tell_of_all_but_what_the_next_may_change(films: Path, flags: str) -> None:
    name = f"growing{flags.replace('+', '-')}.mp4"
    data = by_ffmpeg(films, name, *moving(SECONDS), *tone(SECONDS), *CODED, *AAC, "-movflags", flags).read_bytes()
    final = passed(data)
    listed = []
    for arrived in range(len(data) // 24, len(data), len(data) // 24):
        read = arriving(data, arrived)
        if wanted_for_index(read):
            continue
        assert fragments_follow(read)
        index = so_far(read)
        if index is None:
            continue
        listed += agreeing(data, arrived, index, final)
    assert max(listed) >= 3
    assert len(listed) > 30


@pytest.mark.parametrize("more", [(), ("-cluster_time_limit", "500"), ("-live", "1")], ids=["usual", "short", "live"])
def test_a_scan_that_is_taken_up_again_finds_what_one_does(films: Path, more: tuple[str, ...]) -> None:
    name = f"growing{len(''.join(more))}.mkv"
    data = by_ffmpeg(films, name, *moving(SECONDS), *tone(SECONDS), *CODED, *AAC, *more).read_bytes()
    final = passed(data)
    listed, saved, asked = [], b"", 0
    for arrived in range(1000, len(data), len(data) // 40):
        assert_same(index_matroska(Bytes(data), len(data), saved=saved), final.index)
        there_is = Bytes(data[:arrived])
        index, saved = index_so_far(Arriving(there_is, len(data), [(0, arrived)]), saved, 4.0)
        asked = max(asked, there_is.asked)
        if index is not None:
            assert index.refused == ()
            listed.append(min(agreeing(data, arrived, index, final)))
    assert max(listed) >= 3
    assert listed == sorted(listed)
    assert asked < len(data) / 4
    rest = Bytes(data)
    assert_same(index_matroska(rest, len(data), saved=saved), final.index)
    assert rest.asked < len(data) / 4, "what was scanned while it came is not read again"


@pytest.mark.parametrize("cut", [slice(0), slice(1), slice(100), slice(-8), slice(1, None)])
def test_a_scan_that_cannot_be_taken_up_is_made_anew(films: Path, cut: slice) -> None:
    data = by_ffmpeg(films, "anew.mkv", *moving(SECONDS), *tone(SECONDS), *CODED, *AAC).read_bytes()
    _, saved = index_so_far(Arriving(Bytes(data), len(data), [(0, len(data) // 2)]), b"", 4.0)
    assert_same(index_matroska(Bytes(data), len(data), saved=saved[cut]), passed(data).index)


def assert_same(index: SourceIndex, other: SourceIndex) -> None:
    assert (index.blob, index.origin, index.ends, index.cut_off) == (
        other.blob,
        other.origin,
        other.ends,
        other.cut_off,
    )


def test_a_segment_is_there_with_its_last_byte_and_not_before(whole: bytes) -> None:
    video = passed(whole).index.video
    assert video is not None
    for number, end in enumerate(map(int, video.needed)):
        for arrived, count in ((end - 1, number), (end, number + 1)):
            index = index_mp4(arriving(whole, arrived), len(whole))
            assert index.video is not None
            assert there(index.video, arrived) == count


def claiming(data: bytes, *more: int) -> bytes:
    """The file with a table that calls these samples (from 1) key frames too, as long as before."""

    def change(payload: bytes) -> bytes:
        (count,) = struct.unpack_from(">I", payload, 4)
        numbers = sorted({*struct.unpack_from(f">{count}I", payload, 8), *more})
        return box(b"stss", payload[:4] + struct.pack(f">I{len(numbers)}I", len(numbers), *numbers))

    grown = changed(data, b"stss", change)
    more_bytes = len(grown) - len(data)

    def moved(payload: bytes) -> bytes:
        (count,) = struct.unpack_from(">I", payload, 4)
        offsets = struct.unpack_from(f">{count}I", payload, 8)
        return box(b"stco", payload[:8] + struct.pack(f">{count}I", *(offset + more_bytes for offset in offsets)))

    return changed(grown, b"stco", moved)


def test_a_false_key_frame_is_never_listed(films: Path) -> None:
    """Of groups of three seconds, pictures at 8, 16 and 20 are called key frames, which they are not."""
    rare = [*CODED, "-g", "75"]
    honest = by_ffmpeg(films, "rare.mp4", *moving(SECONDS), *tone(SECONDS), *rare, *AAC, "-movflags", "+faststart")
    data = claiming(honest.read_bytes(), 8 * 25 + 1, 16 * 25 + 1, 20 * 25 + 1)
    final = passed(data)
    assert final.index.video is not None
    seconds = [tick / final.index.video.timescale for tick in final.index.video.boundaries]
    assert seconds == pytest.approx([0, 6, 9, 12, 18, 21])
    before, looked_at = None, 0
    for arrived in steps(data):
        before = arriving(data, arrived, before, looked_at)
        index = index_mp4(before, len(data))
        looked_at = arrived
        for track, after in zip(tracks(index), tracks(final.index), strict=True):
            count = there(track, arrived)
            assert track.boundaries[: count + 1] == after.boundaries[: count + 1]
            assert segments(data, arrived, index, track, count) == final.segments(after)[:count]
    assert before is not None
    assert len(before.lies) == 3


def test_what_was_looked_at_is_not_read_again(whole: bytes) -> None:
    half = steps(whole)[11]
    keys = Bytes(whole)
    index_mp4(Arriving(keys, len(whole), [(0, half)]), len(whole))
    again = Bytes(whole)
    index_mp4(Arriving(again, len(whole), [(0, half)], looked_at=half), len(whole))
    assert again.reads < keys.reads - 5


def test_a_table_that_names_no_key_frames_waits_for_the_whole_file(whole: bytes) -> None:
    silent = changed(whole, b"stss", lambda payload: box(b"free", payload))
    index = index_mp4(arriving(silent, len(silent) // 2), len(silent))
    assert index.video is None
    assert [code for _, code, _ in index.refused] == ["no_keyframes"]


def test_ranges_beyond_the_announced_length_are_refused(whole: bytes) -> None:
    arrived = len(whole) // 2
    with pytest.raises(IndexRefused) as refused:
        index_mp4(arriving(whole, arrived), len(whole) - 100_000)
    assert refused.value.code in {"truncated", "table_mismatch"}


def test_how_much_is_wanted_for_an_index(whole: bytes, last: bytes) -> None:
    moov = whole.index(b"moov") - 4
    end = moov + struct.unpack_from(">I", whole, moov)[0]
    assert wanted_for_index(arriving(whole, 8)) == 16
    assert wanted_for_index(arriving(whole, moov + 3)) == moov + 16
    assert wanted_for_index(arriving(whole, end - 1)) == end
    assert wanted_for_index(arriving(whole, end)) == 0
    assert not fragments_follow(arriving(whole, end))
    at_the_end = last.rindex(b"moov") - 4
    assert wanted_for_index(arriving(last, at_the_end - 100)) == at_the_end + 16


@pytest.mark.parametrize(
    "data",
    [b"\x1aE\xdf\xa3" + bytes(60), bytes(64), b"RIFF" + bytes(60), struct.pack(">I4s", 64, b"ftyp") + bytes(56)],
    ids=["matroska", "zeros", "avi", "no index"],
)
def test_what_has_no_index_before_its_end_is_refused(data: bytes) -> None:
    with pytest.raises(IndexRefused):
        wanted_for_index(arriving(data, len(data)))
