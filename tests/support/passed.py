"""Films as players get them out of a sample index, and read by FFmpeg beside their sources."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from streamgate.packaging.sampleindex import IndexedTrack, SourceIndex, index_mp4
from streamgate.packaging.segments import StoredIndex, assemble


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
    return Passed(data, index_mp4(Bytes(data), len(data), segment_s=segment_s))


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
