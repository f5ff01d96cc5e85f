"""Matroska as other muxers write it, and as none does: frames of a film put into a file of our own making."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import av

EBML, SEGMENT, INFO, TRACKS, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
ENTRY, VOID, TAGS, CRC = 0xAE, 0xEC, 0x1254C367, 0xBF
SIMPLE, GROUP, BLOCK, REFERENCE, DURATION, DISCARD = 0xA3, 0xA0, 0xA1, 0xFB, 0x9B, 0x75A2
XIPH, FIXED, EBML_LACE = 0x02, 0x04, 0x06
_UNKNOWN = b"\x01" + b"\xff" * 7


def name(identifier: int) -> bytes:
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")


def length(value: int, width: int = 0) -> bytes:
    """A size, in as few bytes as it needs or in ``width``."""
    width = width or next(n for n in range(1, 9) if value < (1 << 7 * n) - 1)
    return (value | 1 << 7 * width).to_bytes(width, "big")


def element(identifier: int, *parts: bytes, unknown: bool = False) -> bytes:
    content = b"".join(parts)
    return name(identifier) + (_UNKNOWN if unknown else length(len(content))) + content


def number(identifier: int, value: int) -> bytes:
    return element(identifier, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def text(identifier: int, value: str) -> bytes:
    return element(identifier, value.encode())


def real(identifier: int, value: float) -> bytes:
    return element(identifier, struct.pack(">d", value))


def header(kind: str = "matroska") -> bytes:
    return element(EBML, number(0x4286, 1), number(0x42F7, 1), number(0x42F2, 4), number(0x42F3, 8), text(0x4282, kind),
                   number(0x4287, 4), number(0x4285, 2))  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """Time in milliseconds."""

    time: float
    key: bool
    data: bytes


@dataclass(frozen=True)
class Track:
    """``more``: further elements of its entry; ``own``: of its settings for pictures or sound."""

    number: int
    kind: int
    codec: str
    private: bytes
    own: bytes
    frames: tuple[Frame, ...]
    more: bytes = b""

    def entry(self) -> bytes:
        settings = element(0xE0 if self.kind == 1 else 0xE1, self.own)
        return element(ENTRY, number(0xD7, self.number), number(0x73C5, self.number), number(0x83, self.kind),
                       text(0x86, self.codec), element(0x63A2, self.private), settings, self.more)  # fmt: skip


CODECS = {"h264": "V_MPEG4/ISO/AVC", "hevc": "V_MPEGH/ISO/HEVC", "aac": "A_AAC", "opus": "A_OPUS"}


def read(path: Path) -> list[Track]:
    """The tracks of a film that libav can read."""
    tracks = []
    with av.open(str(path)) as container:
        for stream in container.streams:
            context = stream.codec_context
            if stream.type == "video":
                own = number(0xB0, context.width) + number(0xBA, context.height)
            else:
                own = real(0xB5, float(context.sample_rate)) + number(0x9F, context.layout.nb_channels)
            tracks.append(Track(stream.index + 1, 1 if stream.type == "video" else 2, CODECS[context.name],
                                bytes(context.extradata or b""), own, ()))  # fmt: skip
    with av.open(str(path)) as container:
        found: list[list[Frame]] = [[] for _ in tracks]
        for packet in container.demux():
            if packet.size:
                time = float(packet.pts * packet.time_base * 1000)
                found[packet.stream_index].append(Frame(time, packet.is_keyframe, bytes(packet)))
    return [replace(track, frames=tuple(frames)) for track, frames in zip(tracks, found, strict=True)]


@dataclass(frozen=True)
class Way:
    """How a file is written.

    ``lace``: how frames of sound share a block, and how many; ``groups``: no simple blocks; ``unknown``: sizes left out; ``scale``:
    nanoseconds of a tick; ``middle``: clusters are timed by their middle; ``fillers``: what no reader needs lies between;
    ``discard``: nanoseconds at the end that are not heard.
    """

    lace: tuple[int, int] | None = None
    groups: bool = False
    unknown: bool = False
    scale: int = 1_000_000
    middle: bool = False
    fillers: bool = False
    discard: int = 0
    cluster_ms: int = 1000
    info: bytes = field(default=b"")


def write(tracks: Sequence[Track], way: Way = Way()) -> bytes:
    told = element(INFO, number(0x2AD7B1, way.scale), text(0x4D80, "tests"), text(0x5741, "tests"), way.info)
    parts = [told, element(TRACKS, *(track.entry() for track in tracks))]
    if way.fillers:
        parts.insert(1, element(VOID, bytes(70_000)))
        parts.append(element(TAGS, bytes(9)))
    last = {track.number: track.frames[-1] for track in tracks}
    queue = sorted(
        ((order[0].time if track.kind == 1 else frames[0].time, track, frames)
         for track in tracks for order, frames in _blocks(track, way)), key=lambda block: block[0],
    )  # fmt: skip
    at = 0
    while at < len(queue):
        end = next((n for n in range(at, len(queue)) if queue[n][0] >= queue[at][0] + way.cluster_ms), len(queue))
        begin = max(0, min(frames[0].time for _, _, frames in queue[at:end])) + (
            way.cluster_ms // 2 if way.middle else 0
        )
        time = int(begin * 10**6 / way.scale)
        content = [number(0xE7, time)]
        if way.fillers:
            content = [element(CRC, bytes(4)), *content, number(0xA7, 0), element(VOID, bytes(300))]
        for _, track, frames in queue[at:end]:
            content.append(
                _block(track, frames, time, way, padded=frames[-1] is last[track.number] and track.kind == 2)
            )
        parts.append(element(CLUSTER, *content, unknown=way.unknown))
        at = end
    return header() + element(SEGMENT, *parts, unknown=way.unknown)


def _blocks(track: Track, way: Way) -> list[tuple[list[Frame], list[Frame]]]:
    """Frames by block, each with those in decoding order that it is sorted by: pictures stay in their order."""
    frames = list(track.frames)
    if track.kind == 1:
        latest, found = float("-inf"), []
        for frame in frames:
            latest = max(latest, frame.time)
            found.append(([replace(frame, time=latest)], [frame]))
        return found
    count = way.lace[1] if way.lace else 1
    return [(part, part) for n in range(0, len(frames), count) if (part := frames[n : n + count])]


def _block(track: Track, frames: list[Frame], cluster: int, way: Way, *, padded: bool) -> bytes:
    late = round(frames[0].time * 10**6 / way.scale) - cluster
    kind = way.lace[0] if way.lace and len(frames) > 1 else 0
    simple = not way.groups and not (padded and way.discard)
    flags = kind | (0x80 if simple and frames[0].key else 0)
    body = [length(track.number), struct.pack(">hB", late, flags), lace([frame.data for frame in frames], kind)]
    if simple:
        return element(SIMPLE, *body)
    more = [] if frames[0].key else [element(REFERENCE, b"\xff")]
    if padded and way.discard:
        more.append(element(DISCARD, struct.pack(">q", way.discard)))
    return element(GROUP, element(BLOCK, *body), *more)


def lace(frames: Sequence[bytes], kind: int) -> bytes:
    """Frames as the content of a block (RFC 9559, section 10.3)."""
    sizes = [len(frame) for frame in frames]
    head = b"" if kind == 0 else bytes([len(frames) - 1])
    if kind == XIPH:
        head += b"".join(b"\xff" * (size // 255) + bytes([size % 255]) for size in sizes[:-1])
    elif kind == EBML_LACE:
        for before, size in zip([None, *sizes], sizes[:-1], strict=False):
            head += length(size) if before is None else _signed(size - before)
    return head + b"".join(frames)


def _signed(value: int) -> bytes:
    width = next(n for n in range(1, 9) if abs(value) < (1 << 7 * n - 1) - 1)
    return length(value + (1 << 7 * width - 1) - 1, width)
