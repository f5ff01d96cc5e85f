"""The sample index of an MPEG-TS: its samples are no byte ranges of it, so they are written out once, one behind the other.

What is written is no container: the index alone says what is where. Times are those of the file, in ticks of 1/90,000 s.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import msgspec
import numpy as np

from streamgate.packaging import annexb, cmaf, timing
from streamgate.packaging.codecs import aac_codec
from streamgate.packaging.cutting import ShownTrack, SourceIndex, audio_track, index_of, video_track
from streamgate.packaging.keyframes import Looking
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.sampleentry import AAC_OBJECTS, Description, Edit, aac_shape, video_codec
from streamgate.packaging.sampletables import MAX_DURATION_S, MAX_SAMPLES, Numbers
from streamgate.packaging.tspackets import CLOCK, jumps

LONGEST_JUMP_S = 10
"""What decoding times may go on by from one sample of a track to the next."""

_NOT_STATED = -(1 << 62)
_COLUMNS = 4
AAC_FRAME = 1024
"""Samples of sound in a frame."""

_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_KINDS = {"h264": (b"avc1", b"avcC"), "hevc": (b"hvc1", b"hvcC")}

Write = Callable[[bytes], int]
"""Writes a sample behind all others; the offset at which it begins."""


def changes() -> IndexRefused:
    """Another resolution, another layout of channels."""
    return IndexRefused("stsd_entries", "The coding changes in the middle of the track; every rendition is encoded.")


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """A track to be written out: its place in the file, packet identifier, language and coding (``h264``, ``hevc`` or ``aac``); of
    pictures also their parameter sets as a byte stream, their size, and the shape of a pixel, as (across, down)."""

    number: int
    identifier: int
    language: str | None
    codec: str
    parameters: bytes = b""
    size: tuple[int, int] = (0, 0)
    pixel: tuple[int, int] = (1, 1)


@dataclass(slots=True)
class Rows:
    """Offset, size, time, and whether it is a key frame, of each sample; ``decoded``: when the last of them is decoded."""

    write: Write
    values: array[int] = field(default_factory=lambda: array("q"))
    decoded: int | None = None

    def add(self, data: bytes, shown: int | None, decoded: int, *, key: bool) -> None:
        if self.decoded is not None and not 0 < decoded - self.decoded <= LONGEST_JUMP_S * CLOCK:
            raise jumps()
        self.decoded = decoded
        if len(self.values) >= _COLUMNS * MAX_SAMPLES:
            raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.")
        self.values.extend((self.write(data), len(data), _NOT_STATED if shown is None else shown, key))

    def saved(self) -> bytes:
        """Where they stand, for `resume`: what one differs by from the one before is small."""
        table = np.array(self.values, np.int64).reshape(-1, _COLUMNS)
        return zlib.compress(np.diff(table, axis=0, prepend=0).T.tobytes(), 1)

    def resume(self, saved: bytes, decoded: int | None) -> None:
        """Go on from there. `ValueError` for what is no such thing."""
        columns = zlib.decompressobj().decompress(saved, 8 * _COLUMNS * MAX_SAMPLES)
        steps = np.frombuffer(columns, np.int64).reshape(_COLUMNS, -1)
        self.values, self.decoded = array("q", np.cumsum(steps, axis=1).T.tobytes()), decoded

    def table(self) -> Numbers:
        """The rows. Raises `IndexRefused`."""
        if not self.values:
            raise IndexRefused("table_short", "The track has no samples.")
        found = np.array(self.values, np.int64).reshape(-1, _COLUMNS)
        if int(found[:, 2].max()) > MAX_DURATION_S * CLOCK:
            raise jumps()
        return found


class Pictures:
    """The track of pictures. ``parameters``: its parameter sets as a byte stream; ``shape``: of a pixel, as (across, down)."""

    def __init__(
        self, write: Write, codec: str, parameters: bytes, size: tuple[int, int], shape: tuple[int, int]
    ) -> None:
        self.rows = Rows(write)
        self._codec = codec
        sets = annexb.units(parameters)
        self._known = frozenset(sets)
        self._size, self._shape = size, shape
        try:
            self._config = annexb.record(
                [unit for unit in sets if annexb.kind(unit, codec) in annexb.PARAMETERS[codec]], codec
            )
        except ValueError:
            raise IndexRefused("no_config", "The video lacks the configuration of its decoder.") from None

    def add(self, data: bytes, shown: int | None, decoded: int, *, key: bool) -> None:
        """One picture as the file has it. Raises `IndexRefused`."""
        if shown is None:
            raise jumps()
        try:
            made = annexb.sample(data, self._codec, self._known)
        except ValueError:
            raise changes() from None
        if made:
            self.rows.add(made, shown, decoded, key=key)

    def without_open_group(self) -> bool:
        """Forget the pictures from the last key frame on, since the order of their times is known when all of them have come.

        Whether there is another key frame before.
        """
        keys = np.flatnonzero(np.array(self.rows.values, np.int64)[3::_COLUMNS])
        if len(keys) > 1:
            del self.rows.values[int(keys[-1]) * _COLUMNS :]
        return len(keys) > 1

    def track(self, read: Read, number: int, language: str | None) -> ShownTrack:
        """What was gathered."""
        table = self.rows.table()
        kind, record = _KINDS[self._codec]
        width, height = self._size
        fields = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, b"", 0x18, -1)
        shape = cmaf.box(b"pasp", struct.pack(">2I", *self._shape))
        about = Description(
            kind="video",
            codec=video_codec(kind, self._config),
            entry=cmaf.box(kind, fields, cmaf.box(record, self._config), shape),
            config=self._config,
            timescale=CLOCK,
            edit=Edit((0, 1), 0, None),
            language=language,
            enabled=True,
            matrix=_MATRIX,
            width=width,
            height=height,
        )
        samples = timing.pictures(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), table[:, 3] != 0, 0)
        look = Looking(read, samples, about.codec, about.config)
        return video_track(number, about, samples, 0, look, far=False)


class Sound:
    """A track of AAC in ADTS frames."""

    def __init__(self, write: Write) -> None:
        self.rows = Rows(write)
        self.config: bytes | None = None

    def add(self, data: bytes, shown: int | None, decoded: int, *, key: bool) -> None:
        """One frame as the file has it. Raises `IndexRefused`."""
        try:
            config, frame = annexb.aac(data)
        except ValueError:
            raise IndexRefused("codec", "The sound is of a kind that is not served as it is.") from None
        if config != (self.config or config):
            raise changes()
        self.config = config
        if frame:
            self.rows.add(frame, shown, decoded, key=key)

    def track(self, read: Read, number: int, language: str | None) -> ShownTrack:
        """What was gathered."""
        table = self.rows.table()
        config = self.config or b""
        codec = aac_codec(config)
        if codec not in AAC_OBJECTS or table[0, 2] == _NOT_STATED:
            raise IndexRefused("codec", "The sound is of a kind that is not served as it is.")
        channels, rate = aac_shape(config, 0, 0)
        about = Description(
            kind="audio",
            codec=codec,
            entry=cmaf.aac_entry(cmaf.AudioTrack(rate, channels, config, 0)),
            config=config,
            timescale=rate,
            edit=Edit((0, 1), 0, None),
            language=language,
            enabled=True,
            matrix=_MATRIX,
            channels=channels,
            sample_rate=rate,
        )
        stated = table[:, 2] != _NOT_STATED
        times = np.rint(np.where(stated, table[:, 2], 0) * (rate / CLOCK)).astype(np.int64)
        lasting = np.full(len(table), AAC_FRAME, np.int64)
        drift = round(timing.DRIFT_S * rate)
        samples, start = timing.sound(table[:, 0].copy(), table[:, 1].copy(), times, stated, lasting, drift)
        return audio_track(number, about, samples, start)


def writer(shape: Shape, write: Write) -> Pictures | Sound:
    """What writes out a track of that kind. Raises `IndexRefused`."""
    if shape.codec == "aac":
        return Sound(write)
    return Pictures(write, shape.codec, shape.parameters, shape.size, shape.pixel)


def index_gathered(
    read: Read,
    size: int,
    gathered: list[tuple[int, str | None, Pictures | Sound]],
    *,
    zero: Fraction,
    segment_s: float,
    heard: Mapping[int, Fraction] | None = None,
) -> SourceIndex:
    """The index of what was written out, ``size`` bytes of it; ``gathered``: tracks by their place in the file, with language.

    ``zero``: the file's time, in seconds, that is time 0 of what was gathered. ``heard``: as in `cutting.index_of`, by the file's
    time. Raises `IndexRefused`.
    """
    kept: list[ShownTrack] = []
    refused: list[tuple[int, str, str]] = []
    for number, language, track in gathered:
        try:
            kept.append(track.track(read, number, language))
        except IndexRefused as error:
            if isinstance(track, Pictures):
                raise
            refused.append((number, error.code, error.detail))
    gathered_heard = {number: time - zero for number, time in (heard or {}).items()}
    index = index_of(read, size, kept, refused, Fraction(segment_s).limit_denominator(1000), gathered_heard)
    return replace(index, origin=index.origin + zero)
