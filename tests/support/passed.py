"""Films as players get them out of a sample index, and read by FFmpeg beside their sources."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest

from streamgate.packaging.matroskaindex import index_matroska
from streamgate.packaging.sampleindex import IndexedTrack, SourceIndex, index_mp4
from streamgate.packaging.segments import StoredIndex, assemble
from tests.support.conformance_media import boxes, read_segment

TOGETHER_S = 0.005
"""What picture and sound may be apart from each other in another way than in the source."""

_MATROSKA = b"\x1a\x45\xdf\xa3"


class Bytes:
    """A source in memory that notes how much of it was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0
        self.reads = 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0, "read before the beginning"
        assert length >= 0, "read backwards"
        found = self.data[offset : offset + length]
        self.asked += len(found)
        self.reads += 1
        return found


@dataclass(frozen=True)
class Passed:
    """A film and its index."""

    data: bytes
    index: SourceIndex

    def segments(self, track: IndexedTrack) -> list[bytes]:
        stored = StoredIndex.load(self.index.blob, len(self.data))
        layouts = [stored.segment(track.number, n) for n in range(len(track.boundaries) - 1)]
        made = [assemble(layout, Bytes(self.data)) for layout in layouts]
        assert [layout.length for layout in layouts] == [len(segment) for segment in made]
        return made

    def whole(self, track: IndexedTrack) -> bytes:
        """The track as a player's buffer holds it after all segments."""
        return track.init + b"".join(self.segments(track))


def passed(source: Path | bytes, segment_s: float = 4.0) -> Passed:
    data = source if isinstance(source, bytes) else source.read_bytes()
    index = index_matroska if data.startswith(_MATROSKA) else index_mp4
    return Passed(data, index(Bytes(data), len(data), segment_s=segment_s))


@dataclass(frozen=True)
class Shown:
    """A decoded frame: when (seconds), and a digest of its content."""

    time: Fraction
    digest: str


def decoded(data: bytes, kind: str, which: int = 0) -> list[Shown]:
    """The frames of a track as FFmpeg decodes them, in the order of being shown."""
    with av.open(io.BytesIO(data)) as container:
        stream = getattr(container.streams, kind)[which]
        stream.codec_context.thread_count = 1
        frames = []
        for frame in container.decode(stream):
            assert frame.pts is not None
            content = frame.to_ndarray().tobytes()
            frames.append(Shown(frame.pts * frame.time_base, hashlib.md5(content).hexdigest()))
        return frames


def payloads(data: bytes, kind: str, which: int = 0) -> list[str]:
    """Digests of the coded samples of a track in decoding order, as FFmpeg reads them."""
    with av.open(io.BytesIO(data)) as container:
        stream = getattr(container.streams, kind)[which]
        return [hashlib.md5(bytes(packet)).hexdigest() for packet in container.demux(stream) if packet.size]


def check_times(given: Passed, track: IndexedTrack) -> None:
    """No gap and no overlap: each segment begins where its boundary says and where the one before it ends."""
    pieces = [read_segment(segment) for segment in given.segments(track)]
    assert [piece.sequence for piece in pieces] == list(range(1, len(pieces) + 1))
    edit = 0
    for where, payload in boxes(track.init):
        if where[-1] == b"elst":
            _, edit = struct.unpack_from(">Ii", payload, 8)
    assert edit >= 0
    shown: list[int] = []
    for piece, start, end in zip(pieces, track.boundaries, track.boundaries[1:], strict=False):
        times = [time - edit for time in piece.shown()]
        assert min(times) == times[0] == start or track.kind == "audio"
        assert max(times) < end
        assert piece.rows[0].key
        assert all(row.duration > 0 and row.offset >= 0 for row in piece.rows)
        shown += times
    for piece, after in itertools.pairwise(pieces):
        assert piece.decode_time + sum(row.duration for row in piece.rows) == after.decode_time
    assert sorted(shown) == track.times.tolist()
    assert track.frames == len(shown)


def check_picture(given: Passed, track: IndexedTrack, source: bytes) -> None:
    there, here = decoded(source, "video"), decoded(given.whole(track), "video")
    assert [frame.digest for frame in here] == [frame.digest for frame in there]
    assert [frame.time + given.index.origin for frame in here] == pytest.approx(
        [frame.time for frame in there], abs=0.001
    )
    assert payloads(given.whole(track), "video") == payloads(source, "video")


def check_sound(given: Passed, track: IndexedTrack, source: bytes, which: int = 0) -> None:
    there, here = decoded(source, "audio", which), decoded(given.whole(track), "audio")
    assert abs(here[0].time + given.index.origin - there[0].time) < TOGETHER_S
    assert len(here) == len(there)
    assert max(abs(a.time + given.index.origin - b.time) for a, b in zip(here, there, strict=True)) < TOGETHER_S
    served = payloads(given.whole(track), "audio")
    assert served == payloads(source, "audio", which)[-len(served) :]


def check(given: Passed, source: bytes) -> None:
    if given.index.video is not None:
        check_times(given, given.index.video)
        check_picture(given, given.index.video, source)
    for which, track in enumerate(given.index.audio):
        check_times(given, track)
        check_sound(given, track, source, which)
