"""MPEG-TS written out once, at the speed of copying, so that it can be served without encoding."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from streamgate.media.model import remuxed_file
from streamgate.media.opening import MAX_PIXELS, Source
from streamgate.media.probe import Probe
from streamgate.packaging.cutting import SourceIndex
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.transport import Pictures, Shape, Sound, index_gathered, writer
from streamgate.packaging.tspackets import CLOCK, jumps

PART = 1 << 30
"""Bytes of one of the files that are written, at most."""

_VIDEO = {"h264", "hevc"}
_PICTURES = {"yuv420p", "yuvj420p"}
_AUDIO = "aac"
_EARLY = 32 << 20
"""Bytes within which a track must have begun to have a say in what is time 0."""

_LOOKED = 512
"""Packets after which the clock is looked at."""


@dataclass(slots=True)
class Parts:
    """Samples one behind the other, in files of a folder; ``lengths`` of the files in bytes; ``size``: where the next sample
    begins, also behind those that were written before."""

    folder: Path
    lengths: list[int] = field(default_factory=list)
    size: int = 0
    _file: BinaryIO | None = None

    def write(self, data: bytes) -> int:
        """Where the data begins. `OSError` when there is no room."""
        if self._file is None or self.lengths[-1] + len(data) > PART:
            self.close()
            self._file = (self.folder / remuxed_file(len(self.lengths))).open("xb", buffering=1 << 20)
            self.lengths.append(0)
        self._file.write(data)
        self.lengths[-1] += len(data)
        begin, self.size = self.size, self.size + len(data)
        return begin

    def close(self) -> None:
        """What was written can be read now."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def forget(self) -> None:
        """Delete the files."""
        with suppress(OSError):
            self.close()
        for number in range(len(self.lengths)):
            (self.folder / remuxed_file(number)).unlink(missing_ok=True)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of what was written; a sample never lies in two files."""
        number = 0
        while number < len(self.lengths) and offset >= self.lengths[number]:
            offset -= self.lengths[number]
            number += 1
        if number == len(self.lengths):
            return b""
        with (self.folder / remuxed_file(number)).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)


@dataclass(frozen=True, slots=True)
class Remuxed:
    """A film that was written out: its index, and the lengths of the files. ``before``: bytes that had been written out earlier,
    and lie in front of those."""

    index: SourceIndex
    lengths: tuple[int, ...]
    before: int = 0


def remux(source: Source, found: Probe, *, folder: Path, within_s: float, segment_s: float) -> Remuxed:
    """Write out the pictures and the AAC of an MPEG-TS and index them. Raises `IndexRefused`, and leaves nothing then."""
    parts = Parts(folder)
    try:
        try:
            with source.open(MAX_PIXELS) as container:
                about = shapes(container, found)
                tracks = {shape.number: writer(shape, parts.write) for shape in about}
                zero = _copy(container, tracks, time.monotonic() + within_s)
            parts.close()
            gathered = [(shape.number, shape.language, tracks[shape.number]) for shape in about]
            index = index_gathered(
                parts.read, parts.size, gathered, zero=zero, segment_s=segment_s, heard=found.heard()
            )
        except MemoryError:
            raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.") from None
        except av.error.FFmpegError:
            raise IndexRefused("truncated", "The file is damaged; every rendition is encoded.") from None
        except OSError:
            raise IndexRefused(
                "no_room", "There was no room to write the film out; every rendition is encoded."
            ) from None
    except IndexRefused:
        parts.forget()
        raise
    return Remuxed(index, tuple(parts.lengths))


def shapes(container: InputContainer, found: Probe) -> list[Shape]:
    """What the tracks are that can be written out, pictures first. Raises `IndexRefused`."""
    tracks: list[Shape] = []
    if found.video is not None:
        stream = container.streams[found.video.index]
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        if found.video.interlaced or context.name not in _VIDEO or context.pix_fmt not in _PICTURES:
            raise IndexRefused("codec", "The video is of a kind that browsers do not play, or interlaced.")
        pixel = stream.sample_aspect_ratio or Fraction(1)
        shape = (pixel.numerator, pixel.denominator) if pixel > 0 else (1, 1)
        size = context.width, context.height
        parameters = bytes(context.extradata or b"")
        tracks.append(Shape(stream.index, stream.id, None, context.name, parameters, size, shape))
    for track in found.audio:
        heard = container.streams[track.index]
        if heard.codec_context.name == _AUDIO:
            tracks.append(Shape(heard.index, heard.id, track.language, _AUDIO))
    if any(container.streams[track.number].time_base != Fraction(1, CLOCK) for track in tracks):
        raise jumps()
    if not tracks:
        raise IndexRefused("codec", "The sound is of a kind that is not served as it is.")
    return tracks


def _copy(container: InputContainer, tracks: dict[int, Pictures | Sound], until: float) -> Fraction:
    """Every packet of the tracks; the file's time (seconds) that is their time 0."""
    early: list[Packet[Stream]] = []
    held = 0
    zero: int | None = None
    for count, packet in enumerate(container.demux(*(container.streams[index] for index in tracks))):
        if not packet.size:
            continue
        if packet.dts is None or packet.is_corrupt:
            raise jumps()
        if count % _LOOKED == 0 and time.monotonic() > until:
            raise IndexRefused("too_long", "Writing the film out would take too long; every rendition is encoded.")
        if zero is None:
            early.append(packet)
            held += packet.size
            if len({one.stream_index for one in early}) < len(tracks) and held < _EARLY:
                continue
            zero = min(one.dts for one in early if one.dts is not None)
            for one in early:
                _add(tracks, one, zero)
            early = []
        else:
            _add(tracks, packet, zero)
    if zero is None:
        if not early:
            raise IndexRefused("table_short", "The track has no samples.")
        zero = min(one.dts for one in early if one.dts is not None)
        for one in early:
            _add(tracks, one, zero)
    return Fraction(zero, CLOCK)


def _add(tracks: dict[int, Pictures | Sound], packet: Packet[Stream], zero: int) -> None:
    assert packet.dts is not None
    shown = None if packet.pts is None else packet.pts - zero
    tracks[packet.stream_index].add(bytes(packet), shown, packet.dts - zero, key=packet.is_keyframe)
