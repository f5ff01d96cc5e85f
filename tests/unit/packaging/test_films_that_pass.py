"""Segments out of a sample index are the source: the same frames at the same times, whatever muxer and tables say it."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn_from
from hypothesis import strategies as st

from streamgate.packaging.sampleindex import IndexedTrack, IndexRefused, index_mp4
from streamgate.packaging.segments import MAX_SEGMENT, StoredIndex
from tests.support.conformance_media import only
from tests.support.films import by_ffmpeg, film, moving, tone
from tests.support.mp4_edit import as_co64, box, changed, long_box, same
from tests.support.passed import Bytes, Passed, check, check_times, decoded, passed

SECONDS = 11
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-pix_fmt", "yuv420p")
REORDERED = (*X264, "-bf", "3", "-g", "50", "-b_strategy", "0")
AAC = ("-c:a", "aac", "-b:a", "64k")
PICTURE, SOUND = moving(SECONDS), tone(SECONDS)

KINDS: dict[str, tuple[str, ...]] = {
    "b-frames-moov-last.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC),
    "b-frames-moov-first.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+faststart"),
    "signed-offsets.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+negative_cts_offsets"),
    "no-edit-list.mp4": (*PICTURE, *SOUND, *X264, "-bf", "0", "-g", "50", *AAC, "-use_editlist", "0"),
    "quicktime.mov": (*PICTURE, *SOUND, *REORDERED, *AAC),
    "long-groups.mp4": (*PICTURE, *SOUND, *X264, "-bf", "3", "-g", "250", "-sc_threshold", "40", *AAC),
    "all-key.mp4": (*PICTURE, *SOUND, *X264, "-g", "1", *AAC),
    "silent.mp4": (*PICTURE, *REORDERED),
    "sound-only.m4a": (*SOUND, *AAC),
    "mono-44100.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-ar", "44100", "-ac", "1"),
    "sound-later.mp4": (*PICTURE, "-itsoffset", "0.7", *SOUND, *REORDERED, *AAC),
    "picture-later.mp4": ("-itsoffset", "0.48", *PICTURE, *SOUND, *REORDERED, *AAC),
    "ntsc.mp4": (*moving(SECONDS, rate="30000/1001"), *SOUND, *REORDERED, *AAC),
    "one-a-second.mp4": (*moving(SECONDS, rate=1), *SOUND, *X264, "-g", "3", *AAC),
    "hevc-closed.mp4": (*moving(SECONDS, "160x120", 12), *SOUND, "-c:v", "libx265", "-preset", "ultrafast",
                        "-x265-params", "log-level=none:open-gop=0:keyint=24:pools=1", "-tag:v", "hvc1", *AAC),
    "opus.mp4": (*PICTURE, *SOUND, *REORDERED, "-c:a", "libopus", "-strict", "-2"),
    "av1.mp4": (*moving(SECONDS, "160x120", 12), *SOUND, "-c:v", "libsvtav1", "-preset", "12", "-g", "24", *AAC),
    "fragments.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+frag_keyframe+empty_moov"),
    "fragments-dash.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+dash+frag_keyframe+delay_moov+global_sidx"),
    "fragments-after-moov.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+frag_keyframe"),
    "fragments-one-base.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-movflags",
                               "+frag_keyframe+empty_moov+omit_tfhd_offset"),
    "fragments-short.mp4": (*PICTURE, *SOUND, *REORDERED, *AAC, "-frag_duration", "300000", "-movflags", "+delay_moov"),
}  # fmt: skip


def made(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else by_ffmpeg(folder, name, *KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_times_are_those_of_the_source(films: Path, name: str) -> None:
    data = made(films, name).read_bytes()
    given = passed(data)
    assert given.index.refused == ()
    assert (given.index.video is None) == (name == "sound-only.m4a")
    assert bool(given.index.audio) == (name != "silent.mp4")
    check(given, data)


def test_fragments_with_offsets_below_zero_are_encoded(films: Path) -> None:
    """FFmpeg shows them later than they say, so encoded rungs would not fit beside them; their sound passes."""
    path = by_ffmpeg(
        films, "cmaf.mp4", *PICTURE, *SOUND, *REORDERED, *AAC, "-movflags", "+cmaf+frag_keyframe+delay_moov"
    )
    index = passed(path).index
    assert index.video is None
    assert len(index.audio) == 1
    assert [(number, code) for number, code, _ in index.refused] == [(0, "signed_offsets")]


def test_times_that_are_not_even_come_through(films: Path) -> None:
    data = film(films, seconds=9, jitter=True).read_bytes()
    check(passed(data), data)


def test_video_is_cut_at_key_frames_and_sound_where_the_video_is(films: Path) -> None:
    index = passed(made(films, "b-frames-moov-last.mp4")).index
    assert index.video is not None
    cuts = [Fraction(tick, index.video.timescale) for tick in index.video.boundaries]
    assert cuts == [0, 4, 8, 11]
    (sound,) = index.audio
    starts = [Fraction(tick, sound.timescale) for tick in sound.boundaries]
    assert len(starts) == len(cuts)
    frame = Fraction(1024, 48000)
    assert all(cut <= start < cut + frame for cut, start in zip(cuts[:-1], starts[:-1], strict=True))


def test_segments_merge_where_key_frames_are_rare(films: Path) -> None:
    index = passed(made(films, "long-groups.mp4")).index
    assert index.video is not None
    assert [Fraction(tick, index.video.timescale) for tick in index.video.boundaries] == [0, 10, 11]


def test_what_a_track_says_of_itself(films: Path) -> None:
    given = passed(made(films, "b-frames-moov-last.mp4"))
    video, (sound,) = given.index.video, given.index.audio
    assert video is not None
    assert (video.number, video.kind, video.width, video.height, video.frame_rate, video.rotation) == (
        0, "video", 320, 180, (25, 1), 0,
    )  # fmt: skip
    assert video.codec.startswith("avc1.")
    assert (sound.number, sound.kind, sound.codec, sound.channels, sound.sample_rate, sound.timescale) == (
        1, "audio", "mp4a.40.2", 1, 48000, 48000,
    )  # fmt: skip
    for track in (video, sound):
        segments = given.segments(track)
        spans = [end - start for start, end in zip(track.boundaries, track.boundaries[1:], strict=False)]
        rates = [len(s) * 8 * track.timescale / d for s, d in zip(segments, spans, strict=True)]
        assert max(rates[:-1]) <= track.bandwidth <= max(rates) + 1
        assert track.average_bandwidth == pytest.approx(
            sum(map(len, segments)) * 8 * track.timescale / sum(spans), rel=0.01
        )


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_picture_stays_turned(films: Path, degrees: int) -> None:
    given = passed(film(films, seconds=3, rotation=degrees))
    assert given.index.video is not None
    assert given.index.video.rotation == degrees
    turned = only(given.index.video.init, b"moov", b"trak", b"tkhd")[40:76]
    assert turned in given.data


def test_colours_and_the_shape_of_pixels_are_kept(films: Path) -> None:
    path = by_ffmpeg(
        films, "colours.mp4", *moving(2), *X264, "-vf", "setsar=4/3", "-color_primaries", "bt709", "-color_trc", "bt709",
        "-colorspace", "bt709", "-movflags", "+write_colr",
    )  # fmt: skip
    given = passed(path)
    assert given.index.video is not None
    entry = only(given.index.video.init, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    for kind in (b"colr", b"pasp", b"avcC"):
        at = given.data.index(kind) - 4
        (size,) = struct.unpack_from(">I", given.data, at)
        assert given.data[at : at + size] in entry


def test_every_audio_track_passes_with_its_language(films: Path) -> None:
    path = by_ffmpeg(
        films, "languages.mp4", *PICTURE, *SOUND, *tone(SECONDS, 880), "-map", "0:v", "-map", "1:a", "-map", "2:a",
        *REORDERED, *AAC, "-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra",
    )  # fmt: skip
    data = path.read_bytes()
    given = passed(data)
    assert [track.language for track in given.index.audio] == ["deu", "fra"]
    assert [track.number for track in given.index.audio] == [1, 2]
    check(given, data)


def test_what_cannot_pass_stands_beside_what_can(films: Path) -> None:
    path = by_ffmpeg(films, "ac3.mp4", *PICTURE, *SOUND, *REORDERED, "-c:a", "ac3")
    index = passed(path).index
    assert index.video is not None
    assert index.audio == ()
    ((number, code, detail),) = index.refused
    assert (number, code) == (1, "codec")
    assert detail.endswith(".")


def last(films: Path) -> bytes:
    return made(films, "b-frames-moov-last.mp4").read_bytes()


def test_offsets_of_64_bits_and_long_headers(films: Path) -> None:
    data = changed(last(films), b"stco", as_co64)
    check(passed(data), data)
    wrapped = changed(last(films), b"stsd", lambda payload: long_box(b"stsd", payload))
    given = passed(wrapped)
    assert given.index.video is not None
    check(given, last(films))


def test_composition_offsets_below_zero_in_version_0(films: Path) -> None:
    """Version 0 has no signed offsets, and writers put them there all the same (the edit list counts on it)."""
    signed = made(films, "signed-offsets.mp4").read_bytes()
    data = changed(signed, b"ctts", lambda payload: box(b"ctts", bytes(4) + payload[4:]))
    assert [f.digest for f in decoded(passed(data).whole(_video(passed(data))), "video")] == [
        f.digest for f in decoded(signed, "video")
    ]
    check_times(passed(data), _video(passed(data)))


def _video(given: Passed) -> IndexedTrack:
    assert given.index.video is not None
    return given.index.video


def test_a_start_that_all_tracks_share_is_taken_off(films: Path) -> None:
    """Empty edits before every track: the film begins where its first track does."""

    def later(payload: bytes) -> bytes:
        return box(b"elst", payload[:4] + struct.pack(">IIiHH", 2, 2000, -1, 1, 0) + payload[8:])

    data = changed(last(films), b"elst", later)
    given = passed(data)
    assert given.index.origin == 2
    assert _video(given).boundaries[0] == 0
    check(given, data)


def test_a_film_that_was_cut_between_key_frames_is_encoded(films: Path) -> None:
    cut = by_ffmpeg(films, "cut.mp4", "-ss", "0.9", "-i", str(made(films, "silent.mp4")), "-c", "copy")
    with pytest.raises(IndexRefused) as refused:
        passed(cut)
    assert refused.value.code == "edit_preroll"


def test_tables_of_key_frames_that_lie_or_lack(films: Path) -> None:
    """Every sample is called a key frame, or none is told from another: the coded pictures decide."""
    data = last(films)
    honest = _video(passed(data))
    (count,) = struct.unpack_from(">I", data, data.index(b"stsz") + 12)

    def every(_: bytes) -> bytes:
        return box(b"stss", struct.pack(f">II{count}I", 0, count, *range(1, count + 1)))

    for lying in (changed(data, b"stss", every), changed(data, b"stss", lambda _: b"")):
        assert _video(passed(lying)).boundaries == honest.boundaries
        assert passed(lying).segments(_video(passed(lying))) == passed(data).segments(honest)


def test_far_sources_are_asked_for_few_key_frames_unless_one_lies(films: Path) -> None:
    path = by_ffmpeg(films, "many-keys.mp4", *PICTURE, "-c:v", "libx264", "-preset", "ultrafast", "-g", "2")
    data = path.read_bytes()
    near, far = Bytes(data), Bytes(data)
    expected, found = index_mp4(near, len(data)), index_mp4(far, len(data), far=True)
    assert found.blob == expected.blob
    assert far.reads < 60 < near.reads
    (count,) = struct.unpack_from(">I", data, data.index(b"stsz") + 12)
    every = box(b"stss", struct.pack(f">II{count}I", 0, count, *range(1, count + 1)))
    lying = changed(data, b"stss", lambda _: every)
    assert index_mp4(Bytes(lying), len(lying), far=True).blob == index_mp4(Bytes(lying), len(lying)).blob


def test_tables_that_count_differently(films: Path) -> None:
    data = last(films)
    fewer = changed(data, b"ctts", lambda payload: box(b"ctts", payload[:4] + struct.pack(">I", 10) + payload[8:88]))
    assert _video(passed(fewer)).frames == _video(passed(data)).frames

    def short(made: bytearray) -> None:
        struct.pack_into(">I", made, 8, 3)

    durations = changed(data, b"stts", same(b"stts", short), which=0)
    assert _video(passed(durations)).times.tolist() == _video(passed(data)).times.tolist()


def test_groups_that_are_open_are_no_boundaries(films: Path) -> None:
    """x265 by itself makes open groups: a picture after the key frame is shown before it."""
    path = by_ffmpeg(
        films, "open.mp4", *moving(9, "160x120", 12), "-c:v", "libx265", "-preset", "ultrafast",
        "-x265-params", "log-level=none:open-gop=1:keyint=24:min-keyint=24:bframes=3:scenecut=0:pools=1", "-tag:v", "hvc1",
    )  # fmt: skip
    data = path.read_bytes()
    given = passed(data)
    assert [Fraction(t, _video(given).timescale) for t in _video(given).boundaries] == [0, 9]
    check(given, data)


REFUSED: dict[str, tuple[str, tuple[bytes, Any]]] = {
    "two cuts": ("multi_edit", (b"elst", lambda p: box(b"elst", p[:4] + struct.pack(">I", 2) + p[8:20] * 2))),
    "half speed": ("edit_rate", (b"elst", same(b"elst", lambda p: struct.pack_into(">HH", p, 16, 0, 0x8000)))),
    "inside a group": ("edit_preroll", (b"elst", same(b"elst", lambda p: struct.pack_into(">I", p, 12, 9000)))),
    "two codings": ("stsd_entries", (b"stsd", lambda p: box(b"stsd", p[:4] + struct.pack(">I", 2) + p[8:] * 2))),
    "another coding": ("stsd_entries", (b"stsc", same(b"stsc", lambda p: struct.pack_into(">I", p, 16, 2)))),
    "media elsewhere": ("external_data", (b"dref", same(b"dref", lambda p: struct.pack_into(">I", p, 16, 0)))),
    "encrypted": ("encrypted", (b"stsd", same(b"stsd", lambda p: p.__setitem__(slice(12, 16), b"encv")))),
    "beyond the end": ("truncated", (b"stco", same(b"stco", lambda p: struct.pack_into(">I", p, 8, 0x7FFFFFFF)))),
    "no chunks": ("table_short", (b"stsc", same(b"stsc", lambda p: struct.pack_into(">I", p, 12, 0)))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_simple_is_refused_by_its_name(films: Path, name: str) -> None:
    code, (kind, change) = REFUSED[name]
    data = made(films, "silent.mp4").read_bytes()
    with pytest.raises(IndexRefused) as refused:
        passed(changed(data, kind, change))
    assert refused.value.code == code
    assert refused.value.detail.endswith(".")


def test_key_frames_that_are_too_far_apart(films: Path) -> None:
    path = by_ffmpeg(films, "rare.mp4", *moving(25, "64x48", 5), *X264, "-g", "1000")
    with pytest.raises(IndexRefused) as refused:
        passed(path)
    assert refused.value.code == "long_gop"


def test_media_is_not_read(films: Path) -> None:
    """The index box, and a few bytes for each key frame."""
    path = by_ffmpeg(films, "large.mp4", *moving(12, "640x360"), *X264, "-b:v", "8M", "-g", "25")
    source = Bytes(path.read_bytes())
    size = len(source.data)
    index = passed(path).index
    assert index_mp4(source, size).blob == index.blob
    assert size > 2_000_000
    assert source.asked < 40_000


def test_a_stored_index_is_checked_again(films: Path) -> None:
    given = passed(made(films, "silent.mp4"))
    blob, size = given.index.blob, len(given.data)
    with pytest.raises(ValueError, match="no index of this source"):
        StoredIndex.load(blob, size + 1)
    for cut in range(0, len(blob), 97):
        with pytest.raises(ValueError, match="index"):
            _all_segments(StoredIndex.load(blob[:cut], size), given)
    stored = StoredIndex.load(blob, size)
    with pytest.raises(LookupError):
        stored.segment(0, 3)
    with pytest.raises(LookupError):
        stored.segment(0, -1)
    with pytest.raises(LookupError):
        stored.segment(7, 0)


def _all_segments(stored: StoredIndex, film: Passed) -> None:
    for track in (_video(film), *film.index.audio):
        for n in range(len(track.boundaries) - 1):
            stored.segment(track.number, n)


def test_a_segment_is_made_of_the_front_of_an_index_and_one_record(films: Path) -> None:
    given = passed(made(films, "b-frames-moov-last.mp4"))
    blob, size = given.index.blob, len(given.data)
    whole, front = StoredIndex.load(blob, size), StoredIndex.load(blob[: StoredIndex.front_length(blob[:64])], size)
    assert len(front) < len(blob) / 2
    for track in (_video(given), *given.index.audio):
        for n in range(len(track.boundaries) - 1):
            at, length = front.record(track.number, n)
            assert front.layout(track.number, n, blob[at : at + length]) == whole.segment(track.number, n)
            with pytest.raises(ValueError, match="damaged"):
                front.layout(track.number, n, blob[at : at + length - 4])


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@drawn_from(draws=st.data())
def test_a_damaged_stored_index_gives_errors_and_no_other_bytes(films: Path, draws: st.DataObject) -> None:
    source = passed(made(films, "silent.mp4"))
    blob = bytearray(source.index.blob)
    for _ in range(draws.draw(st.integers(1, 3))):
        blob[draws.draw(st.integers(0, min(len(blob) - 1, 4000)))] = draws.draw(st.integers(0, 255))
    try:
        stored = StoredIndex.load(bytes(blob), len(source.data))
        layout = stored.segment(0, draws.draw(st.integers(0, 3)))
    except (ValueError, LookupError):
        return
    assert all(offset >= 0 and offset + length <= len(source.data) for offset, length in layout.ranges)
    assert sum(length for _, length in layout.ranges) <= MAX_SEGMENT


def test_pieces_of_the_source_are_few_and_cover_every_range(films: Path) -> None:
    source = passed(made(films, "b-frames-moov-last.mp4"))
    stored = StoredIndex.load(source.index.blob, len(source.data))
    for track in (_video(source), *source.index.audio):
        layout = stored.segment(track.number, 0)
        assert len(layout.ranges) > 3
        (piece,) = layout.span()
        assert piece[0] == min(offset for offset, _ in layout.ranges)
        assert sum(piece) == max(sum(found) for found in layout.ranges)
