"""CMAF init and media segments from numbers and coded samples (ISO/IEC 14496-12, 14496-15, 23000-19).

Timing that every reader gets right: composition offsets are never negative, the video's init segment carries one
edit whose media time is the track's reorder delay, and a segment's ``tfdt`` is the presentation time of its first
(key) frame. A reader that knows edit lists and one that knows only ``tfdt`` agree.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SYNC_FLAGS = 0x02000000
"""Sample flags of a key frame: depends on no other."""

DELTA_FLAGS = 0x01010000
"""Sample flags of any other frame: depends on others, is no sync sample."""

TRACK_ID = 1
"""Every rendition is a file of one track."""

ROWS, ALIKE, STEADY = 0, 1, 2
"""How the samples of a segment are told (its form). Rows: duration, size, flags and composition offset of each. Alike: key frames
of one duration, shown as they are decoded; their sizes. Steady: of one duration, and only the first is a key frame; size and
composition offset of each. All u32, big-endian."""

ROW_BYTES = (16, 4, 8)
"""Bytes that a sample takes, by form."""

_TRUN_FLAGS = (0xF01, 0x201, 0xA05)
"""Flags of the track run (8.8.8), by form."""

_TFHD_FLAGS = (0x020000, 0x020028, 0x020028)
"""Flags of its header (8.8.7), by form: offsets count from the moof; default duration and flags."""

_MOOF = struct.Struct(">I4sI4sIII4sI4sII")
_DEFAULTS = struct.Struct(">2I")
_TFDT_TRUN = struct.Struct(">I4sIQI4sIIi")
_MDAT = struct.Struct(">I4s")
_FIRST_FLAGS = struct.pack(">I", SYNC_FLAGS)

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED = "und"
_MAX_BOX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """What the init segment of an H.264 rendition says. ``reorder``: see `VideoTiming`, in ticks. Square pixels."""

    timescale: int
    width: int
    height: int
    avcc: bytes
    reorder: int


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """What the init segment of an AAC rendition says; its timescale is the sampling rate."""

    sample_rate: int
    channels: int
    config: bytes
    bitrate: int
    language: str | None = None


@dataclass(frozen=True, slots=True)
class CopiedTrack:
    """What the init segment of a track that is served as it was uploaded says: ``entry`` is its sample entry, a box; ``matrix``
    turns the picture (8.3.2); ``width`` and ``height`` are 0 for sound. ``edit``: media time of the one edit, in ticks; 0 for none.
    """

    kind: str
    timescale: int
    entry: bytes
    edit: int
    matrix: bytes
    width: int = 0
    height: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One coded sample: ``duration`` and ``offset`` (composition minus decoding time, not negative) in ticks."""

    data: bytes
    duration: int
    offset: int = 0
    key: bool = True


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box; `ValueError` when it would need a 64-bit length."""
    size = 8 + sum(map(len, parts))
    if size > _MAX_BOX:
        raise ValueError("a box of more than 4 GiB")
    return b"".join((struct.pack(">I4s", size, kind), *parts))


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


_STYP = box(b"styp", b"msdh", struct.pack(">I", 0), b"msdhmsixcmfs")


def init_segment(track: VideoTrack | AudioTrack | CopiedTrack) -> bytes:
    """``ftyp`` and ``moov`` of a rendition."""
    return box(b"ftyp", b"iso6", struct.pack(">I", 0), b"iso6cmfcmp41dash") + box(
        b"moov",
        full_box(b"mvhd", 0, 0, struct.pack(">4I", 0, 0, 1000, 0), struct.pack(">IHxx8x", 0x10000, 0x100), _MATRIX, bytes(24),
                 struct.pack(">I", TRACK_ID + 1)),
        _trak(track),
        box(b"mvex", full_box(b"trex", 0, 0, struct.pack(">5I", TRACK_ID, 1, 0, 0, 0))),
    )  # fmt: skip


def media_segment(sequence: int, decode_time: int, samples: Sequence[Sample]) -> bytes:
    """``styp``, ``moof`` and ``mdat``: the samples in decoding order, the first at ``decode_time`` (ticks).

    ``sequence`` counts from 1. `ValueError` without samples, for a negative offset or a duration that is not positive.
    """
    if not samples:
        raise ValueError("a segment without samples")
    if any(sample.offset < 0 or sample.duration <= 0 for sample in samples):
        raise ValueError("a sample with a negative offset or without duration")
    count, body = len(samples), sum(len(sample.data) for sample in samples)
    first = samples[0].duration
    if all(sample.key and not sample.offset and sample.duration == first for sample in samples):
        rows = struct.pack(f">{count}I", *(len(sample.data) for sample in samples))
        head = media_head(sequence, decode_time, count, rows, body, form=ALIKE, duration=first)
    else:
        row = struct.Struct(">4I")
        rows = b"".join(
            row.pack(sample.duration, len(sample.data), SYNC_FLAGS if sample.key else DELTA_FLAGS, sample.offset)
            for sample in samples
        )
        head = media_head(sequence, decode_time, count, rows, body, form=ROWS)
    return b"".join((head, *(sample.data for sample in samples)))


def media_head(
    sequence: int, decode_time: int, count: int, rows: bytes, body: int, *, form: int, duration: int = 0
) -> bytes:
    """What stands before the ``body`` bytes of a segment's ``count`` samples: ``styp``, ``moof`` and the header of ``mdat``.

    ``rows``: what is told of each sample, by ``form`` (`ROWS`, `ALIKE`, `STEADY`); ``duration``: of all samples, where they have
    one.
    """
    defaults = first = b""
    if form != ROWS:
        defaults = _DEFAULTS.pack(duration, SYNC_FLAGS if form == ALIKE else DELTA_FLAGS)
    if form == STEADY:
        first = _FIRST_FLAGS
    mfhd, tfdt, tfhd, trun = 16, 20, 16 + len(defaults), 20 + len(first) + len(rows)
    traf = 8 + tfhd + tfdt + trun
    moof = 8 + mfhd + traf
    return b"".join(
        (
            _STYP,
            _MOOF.pack(moof, b"moof", mfhd, b"mfhd", 0, sequence, traf, b"traf", tfhd, b"tfhd", _TFHD_FLAGS[form], TRACK_ID),
            defaults,
            # The data offset counts from the start of the moof.
            _TFDT_TRUN.pack(tfdt, b"tfdt", 1 << 24, decode_time, trun, b"trun", _TRUN_FLAGS[form], count, moof + 8),
            first,
            rows,
            _MDAT.pack(8 + body, b"mdat"),
        )
    )  # fmt: skip


def video_samples(frames: Sequence[tuple[int, bytes, bool]], start: int, end: int, reorder: int) -> list[Sample]:
    """Samples of one segment from coded frames in decoding order: (presentation time, bytes, key) each.

    ``start`` and ``end`` are the boundaries of the segment, ``reorder`` the track's delay, all in ticks. Decoding
    times are the presentation times in ascending order, held back so that none comes after the frame's own
    composition time; the first is ``start``. `ValueError` when the first frame is no key frame at ``start``, or no
    such times exist (a frame outside the segment, a reorder depth beyond ``reorder``).
    """
    if not frames or frames[0][0] != start or not frames[0][2]:
        raise ValueError("a segment that does not begin with a key frame at its boundary")
    shown = sorted(time for time, _, _ in frames)
    if shown[0] < start or shown[-1] >= end:
        raise ValueError("a frame outside its segment")
    times = [0] * len(frames)
    following = end
    for index in range(len(frames) - 1, -1, -1):
        following = min(shown[index], frames[index][0] + reorder, following - 1)
        times[index] = following
    if times[0] != start:
        raise ValueError("frames are reordered further than the track allows")
    return [
        Sample(data, after - decode, time + reorder - decode, key)
        for (time, data, key), (decode, after) in zip(frames, pairwise((*times, end)), strict=True)
    ]


def key_frame(segment: bytes) -> bytes:
    """The first sample of a segment that `media_segment` made, as a segment of its own, at the same time.

    `ValueError` for anything else, and when that sample is no key frame: nothing is guessed.
    """
    moof = _child(segment, b"moof")
    traf = _child(moof, b"traf")
    trun, tfhd = _child(traf, b"trun"), _child(traf, b"tfhd")
    try:
        (sequence,) = struct.unpack_from(">I", _child(moof, b"mfhd"), 4)
        (decode_time,) = struct.unpack_from(">Q", _child(traf, b"tfdt"), 4)
        kind, count = struct.unpack_from(">II", trun, 0)
        if kind == _TRUN_FLAGS[ROWS]:
            duration, size, flags, offset = struct.unpack_from(">4I", trun, 12)
        elif kind == _TRUN_FLAGS[ALIKE]:
            (size,), (duration, flags), offset = (
                struct.unpack_from(">I", trun, 12),
                struct.unpack_from(">II", tfhd, 8),
                0,
            )
        else:
            raise ValueError("a segment of another kind")
    except struct.error:
        raise ValueError("a segment that is cut off") from None
    if not count or flags != SYNC_FLAGS:
        raise ValueError("a segment that does not begin with a key frame")
    data = _child(segment, b"mdat")
    if len(data) < size:
        raise ValueError("a segment that is cut off")
    return media_segment(sequence, decode_time, [Sample(bytes(data[:size]), duration, offset)])


def _child(data: bytes, kind: bytes) -> bytes:
    """The content of the first box of a kind; `ValueError` when there is none."""
    at = 0
    while at + 8 <= len(data):
        size, found = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            break
        if found == kind:
            return data[at + 8 : at + size]
        at += size
    raise ValueError(f"no {kind.decode()} box")


def _copied(track: VideoTrack | AudioTrack) -> CopiedTrack:
    """A track of ours in the same terms."""
    if isinstance(track, VideoTrack):
        return CopiedTrack(
            "video", track.timescale, _avc1(track), track.reorder, _MATRIX, track.width, track.height
        )  # fmt: skip
    return CopiedTrack("audio", track.sample_rate, aac_entry(track), 0, _MATRIX, language=track.language)


def _trak(given: VideoTrack | AudioTrack | CopiedTrack) -> bytes:
    enabled_in_movie = 3
    track = given if isinstance(given, CopiedTrack) else _copied(given)
    edits = b""
    if track.edit or track.kind == "video":
        edits = box(b"edts", full_box(b"elst", 0, 0, struct.pack(">IIiHH", 1, 0, track.edit, 1, 0)))
    if track.kind == "video":
        volume, handler, name, header = 0, b"vide", b"video", full_box(b"vmhd", 0, 1, bytes(8))
    else:
        volume, handler, name, header = 0x100, b"soun", b"audio", full_box(b"smhd", 0, 0, bytes(4))
    tkhd = full_box(
        b"tkhd", 0, enabled_in_movie, struct.pack(">5I", 0, 0, TRACK_ID, 0, 0), bytes(8),
        struct.pack(">hhHxx", 0, 0, volume), track.matrix, struct.pack(">2I", track.width << 16, track.height << 16),
    )  # fmt: skip
    dinf = box(b"dinf", full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1)))
    tables = box(
        b"stbl", full_box(b"stsd", 0, 0, struct.pack(">I", 1), track.entry), full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)), full_box(b"stsz", 0, 0, bytes(8)), full_box(b"stco", 0, 0, bytes(4)),
    )  # fmt: skip
    media = box(
        b"mdia",
        full_box(
            b"mdhd", 0, 0, struct.pack(">4IHxx", 0, 0, track.timescale, 0, _language(track.language or _UNDETERMINED))
        ),
        full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(12), name + b"\0"),
        box(b"minf", header, dinf, tables),
    )
    return box(b"trak", tkhd, edits, media)


def _language(code: str) -> int:
    """Three letters of ISO 639-2 packed into fifteen bits; anything else is undetermined."""
    letters = code if len(code) == 3 and all("a" <= letter <= "z" for letter in code) else _UNDETERMINED
    first, second, third = (ord(letter) - 0x60 for letter in letters)
    return first << 10 | second << 5 | third


def _avc1(track: VideoTrack) -> bytes:
    entry = struct.pack(
        ">6xH16xHHIIIH32sHh", 1, track.width, track.height, 0x480000, 0x480000, 0, 1, b"", 0x18, -1
    )  # fmt: skip
    return box(b"avc1", entry, box(b"avcC", track.avcc), box(b"pasp", struct.pack(">2I", 1, 1)))


def aac_entry(track: AudioTrack) -> bytes:
    """The sample entry (``mp4a``) of an AAC track."""
    # The rate field holds 16.16 bits; above 65535 Hz only the configuration record says it.
    rate = track.sample_rate << 16 if track.sample_rate < 1 << 16 else 0
    entry = struct.pack(">6xH8xHHHHI", 1, track.channels, 16, 0, 0, rate)
    aac, audio_stream = 0x40, 0x15
    decoder = _descriptor(
        4, struct.pack(">BB3xII", aac, audio_stream, track.bitrate, track.bitrate), _descriptor(5, track.config)
    )  # fmt: skip
    return box(
        b"mp4a",
        entry,
        full_box(b"esds", 0, 0, _descriptor(3, struct.pack(">HB", 0, 0), decoder, _descriptor(6, b"\2"))),
    )


def _descriptor(tag: int, *parts: bytes) -> bytes:
    """ISO/IEC 14496-1, 8.3.3: the length in seven-bit groups."""
    body = b"".join(parts)
    length = bytes((len(body) >> shift & 0x7F) | (0x80 if shift else 0) for shift in (21, 14, 7, 0))
    return bytes((tag,)) + length + body
