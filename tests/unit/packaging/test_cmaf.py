"""Boxes from numbers: what goes in comes out of a strict reading, and what cannot be is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.packaging.cmaf import (
    AudioTrack,
    Sample,
    VideoTrack,
    init_segment,
    key_frame,
    media_segment,
    video_samples,
)
from streamgate.packaging.codecs import aac_codec, avc_codec
from tests.support.conformance_media import boxes, only, read_segment

samples = st.builds(
    Sample,
    data=st.binary(min_size=1, max_size=50),
    duration=st.integers(1, 1 << 20),
    offset=st.integers(0, 1 << 20),
    key=st.booleans(),
)


@given(st.integers(1, 1 << 31), st.integers(0, 1 << 50), st.lists(samples, min_size=1, max_size=40))
def test_a_segment_is_read_as_it_was_written(sequence: int, decode_time: int, given_samples: list[Sample]) -> None:
    read = read_segment(media_segment(sequence, decode_time, given_samples))
    assert (read.sequence, read.decode_time) == (sequence, decode_time)
    assert [(r.duration, r.size, r.offset, r.key) for r in read.rows] == [
        (s.duration, len(s.data), s.offset, s.key) for s in given_samples
    ]
    assert read.data == b"".join(sample.data for sample in given_samples)


@pytest.mark.parametrize("wrong", [[], [Sample(b"x", 0)], [Sample(b"x", -1)], [Sample(b"x", 1, offset=-1)]])
def test_a_segment_that_cannot_be_is_refused(wrong: list[Sample]) -> None:
    with pytest.raises(ValueError, match=r"segment|sample"):
        media_segment(1, 0, wrong)


@given(st.integers(1, 1 << 31), st.integers(0, 1 << 50), st.lists(samples, min_size=1, max_size=40))
def test_a_key_frame_alone_is_the_first_sample_as_it_stood(
    sequence: int, decode_time: int, given_samples: list[Sample]
) -> None:
    first = replace(given_samples[0], key=True)
    alone = read_segment(key_frame(media_segment(sequence, decode_time, [first, *given_samples[1:]])))
    assert (alone.sequence, alone.decode_time) == (sequence, decode_time)
    assert [(r.duration, r.size, r.offset, r.key) for r in alone.rows] == [
        (first.duration, len(first.data), first.offset, True)
    ]
    assert alone.data == first.data


def test_what_does_not_begin_with_a_key_frame_has_none() -> None:
    with pytest.raises(ValueError, match="key frame"):
        key_frame(media_segment(1, 0, [Sample(b"delta", 10, key=False), Sample(b"key", 11)]))


@given(st.data())
def test_a_damaged_segment_is_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    whole = bytearray(media_segment(1, 0, [Sample(b"abcdef", 10, 5), Sample(b"x", 11, 5, key=False)]))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole))) :]
    with contextlib.suppress(ValueError):
        key_frame(bytes(whole))


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 100])
def test_a_segment_that_is_cut_off_is_refused(cut: int) -> None:
    whole = media_segment(1, 0, [Sample(b"abcdef", 10, 5), Sample(b"x", 11, 5, key=False)])
    with pytest.raises(ValueError, match=r"box|cut off"):
        key_frame(whole[:cut])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 1000), st.integers(0, 3), st.randoms())
def test_reordered_frames_keep_their_times(durations: list[int], start: int, depth: int, dice: object) -> None:
    shown = [start]
    for duration in durations[:-1]:
        shown.append(shown[-1] + duration)
    end = shown[-1] + durations[-1]
    # Decoding order: each frame that is referred to comes before up to `depth` frames that are shown before it.
    order, at = [0], 1
    while at < len(shown):
        group = list(range(at, min(at + depth + 1, len(shown))))
        order += [group[-1], *group[:-1]]
        at += len(group)
    reorder = (depth + 1) * 50
    made = video_samples([(shown[i], b"x", i == 0) for i in order], start, end, reorder)
    decode, times = start, []
    for sample in made:
        assert sample.duration > 0
        assert sample.offset >= 0
        times.append(decode + sample.offset - reorder)
        decode += sample.duration
    assert times == [shown[i] for i in order]
    assert decode == end


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [(1, b"x", True)],
        [(0, b"x", False)],
        [(0, b"x", True), (10, b"x", False)],
        [(0, b"x", True), (-1, b"x", False)],
    ],
)
def test_frames_that_do_not_fit_their_segment_are_refused(frames: list[tuple[int, bytes, bool]]) -> None:
    with pytest.raises(ValueError, match=r"segment|frame"):
        video_samples(frames, 0, 10, 2)


def test_init_segments_say_what_the_rendition_is() -> None:
    avcc = bytes.fromhex("014d401effe10004674d401e01000468ee3c80")
    video = init_segment(VideoTrack(timescale=15360, width=640, height=360, avcc=avcc, reorder=1024))
    assert only(video, b"moov", b"trak", b"edts", b"elst")[12:16] == (1024).to_bytes(4, "big")
    assert avcc in only(video, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    audio = init_segment(AudioTrack(sample_rate=96000, channels=2, config=b"\x10\x10", bitrate=128000, language="deu"))
    assert not [path for path, _ in boxes(audio) if path[-1] == b"edts"]
    language = int.from_bytes(only(audio, b"moov", b"trak", b"mdia", b"mdhd")[-4:-2], "big")
    assert "".join(chr((language >> shift & 31) + 0x60) for shift in (10, 5, 0)) == "deu"


def test_codecs_are_named_as_players_expect() -> None:
    assert avc_codec(bytes.fromhex("01640028ffe100")) == "avc1.640028"
    assert avc_codec(bytes.fromhex("014d401effe100")) == "avc1.4D401E"
    assert aac_codec(bytes.fromhex("1190")) == "mp4a.40.2"
    for wrong in (b"", bytes(7), b"\x01d"):
        with pytest.raises(ValueError, match="record"):
            avc_codec(wrong)
