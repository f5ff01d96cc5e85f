"""The sound of a film on one global grid of samples: any range of it can be had by itself, and ranges fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, gcd

from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from streamgate.domain.asset import FailureCode
from streamgate.media.decoding import MAX_DAMAGED, decoded, only, packets, seek
from streamgate.media.opening import MAX_PIXELS, Source, refused
from streamgate.media.recipe import AudioRecipe

_BYTES = 4
_LAYOUTS = {1: "mono", 2: "stereo"}
_WARM_UP = Fraction(1, 2)
"""Seconds decoded before the wanted range: transform overlap, bit reservoirs, resampler."""

_STEPS_BACK = (_WARM_UP, Fraction(3), Fraction(15), Fraction(60))
_PIECE = 4096


class SourceSamples:
    """One track as float samples at the source's rate; sample 0 is time 0 of the film.

    ``read`` goes forwards only. What the source lacks (before its start, gaps, after its end) is silence.
    """

    def __init__(self, source: Source, recipe: AudioRecipe, zero: Fraction, channels: int, begin: int) -> None:
        self._source = source
        self._recipe = recipe
        self._zero = zero
        self._channels = channels
        self._converters: dict[tuple[str, str, int], AudioResampler] = {}
        self._planes = [bytearray() for _ in range(channels)]
        self._at = begin
        self._base = Fraction(1, recipe.rate)
        self.damaged = 0
        self._pieces = self._since(begin)
        self._later: tuple[int, list[bytes]] | None = None

    def read(self, count: int) -> list[bytes]:
        """The next ``count`` samples, one byte string per channel."""
        want = count * _BYTES
        while len(self._planes[0]) < want:
            piece, self._later = self._later or next(self._pieces, None), None
            if piece is None:
                self._silence(count - len(self._planes[0]) // _BYTES)
            else:
                self._place(*piece, limit=count)
        taken = [bytes(plane[:want]) for plane in self._planes]
        for plane in self._planes:
            del plane[:want]
        return taken

    def _silence(self, count: int) -> None:
        for plane in self._planes:
            plane.extend(bytes(count * _BYTES))
        self._at += count

    def _place(self, position: int, planes: list[bytes], limit: int) -> None:
        """Put a decoded piece where its time says. ``limit`` bounds the silence made at once for a gap before it."""
        gap = position - self._at
        if abs(gap) <= self._tolerance():
            gap = 0
        if gap > 0:
            missing = max(0, limit - len(self._planes[0]) // _BYTES)
            if gap > missing:
                # The piece lies beyond what is asked for: keep it for later.
                self._silence(missing)
                self._later = (position, planes)
                return
            self._silence(gap)
        count = len(planes[0]) // _BYTES
        skip = min(count, -gap) if gap < 0 else 0
        for plane, data in zip(self._planes, planes, strict=True):
            plane.extend(data[skip * _BYTES :])
        self._at += count - skip

    def _tolerance(self) -> int:
        return max(2, ceil(Fraction(3, 2) * self._base * self._recipe.rate))

    def _since(self, begin: int) -> Iterator[tuple[int, list[bytes]]]:
        wanted = self._zero + Fraction(begin, self._recipe.rate)
        start = Fraction(*self._recipe.start)
        for step in _STEPS_BACK:
            if wanted - step <= start:
                break
            with self._source.open(MAX_PIXELS) as container:
                if not seek(container, self._recipe.index, wanted - step):
                    break
                pieces = self._decode(container)
                first = next(pieces, None)
                if first is not None and first[0] <= begin:
                    yield first
                    yield from pieces
                    return
        with self._source.open(MAX_PIXELS) as container:
            yield from self._decode(container)

    def _decode(self, container: InputContainer) -> Iterator[tuple[int, list[bytes]]]:
        stream = container.streams[self._recipe.index]
        only(container, stream.index)
        self._base = base = stream.time_base or Fraction(1, self._recipe.rate)
        following: int | None = None
        for packet in packets(container, stream.index):
            for frame in self._frames(packet):
                position = following
                if frame.pts is not None:
                    position = self._position(frame.pts * (frame.time_base or base))
                if position is None:
                    position = round((Fraction(*self._recipe.start) - self._zero) * self._recipe.rate)
                for planes in self._convert(frame):
                    yield position, planes
                    position += len(planes[0]) // _BYTES
                following = position

    def _position(self, time: Fraction) -> int:
        """The sample at which a frame begins; coarse timestamps are moved onto the grid of the source's own packets."""
        rate, quantum = self._recipe.rate, self._recipe.quantum
        exact = (time - self._zero) * rate
        if quantum > 1:
            origin = (Fraction(*self._recipe.start) - self._zero) * rate
            near = origin + quantum * round((exact - origin) / quantum)
            if abs(near - exact) <= self._base * rate + 1:
                exact = near
        return round(exact)

    def _frames(self, packet: Packet[Stream]) -> list[AudioFrame]:
        frames = decoded(packet)
        if frames is None:
            self.damaged += 1
            if self.damaged > MAX_DAMAGED:
                raise refused(FailureCode.MALFORMED_MEDIA)
        return [frame for frame in frames or () if isinstance(frame, AudioFrame)]

    def _convert(self, frame: AudioFrame) -> Iterator[list[bytes]]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        converter = self._converters.get(shape)
        if converter is None:
            converter = AudioResampler("fltp", _LAYOUTS[self._channels], self._recipe.rate)
            self._converters = {shape: converter}
        frame.pts = None
        for made in converter.resample(frame):
            yield _planes(made)


class GridSamples:
    """One track at another rate: sample n is time n / ``rate`` of the film, wherever reading began."""

    def __init__(
        self, source: Source, recipe: AudioRecipe, zero: Fraction, *, rate: int, channels: int, begin: int
    ) -> None:
        self._channels = channels
        self._resampler: AudioResampler | None = None
        self._planes = [bytearray() for _ in range(channels)]
        self._rate_in = recipe.rate
        skip = 0
        start = begin
        if rate != recipe.rate:
            # Begin where both grids meet, so that the resampler's phase does not depend on where reading began.
            meet = rate // gcd(rate, recipe.rate)
            whole = begin // meet * meet
            skip, start = begin - whole, whole * recipe.rate // rate
            self._resampler = AudioResampler("fltp", _LAYOUTS[channels], rate)
        self.samples = SourceSamples(source, recipe, zero, channels, start)
        self._fed = 0
        if skip:
            self.read(skip)

    def read(self, count: int) -> list[bytes]:
        """The next ``count`` samples, one byte string per channel."""
        if self._resampler is None:
            return self.samples.read(count)
        want = count * _BYTES
        while len(self._planes[0]) < want:
            frame = audio_frame(self.samples.read(_PIECE), self._rate_in, self._fed)
            self._fed += _PIECE
            for made in self._resampler.resample(frame):
                for plane, data in zip(self._planes, _planes(made), strict=True):
                    plane.extend(data)
        taken = [bytes(plane[:want]) for plane in self._planes]
        for plane in self._planes:
            del plane[:want]
        return taken


def audio_frame(planes: list[bytes], rate: int, pts: int) -> AudioFrame:
    """A frame of planar float samples."""
    frame = AudioFrame("fltp", _LAYOUTS[len(planes)], len(planes[0]) // _BYTES)
    for plane, data in zip(frame.planes, planes, strict=True):
        plane.update(data.ljust(plane.buffer_size, b"\0"))
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


def _planes(frame: AudioFrame) -> list[bytes]:
    # The planes' buffers are padded beyond the samples.
    return [bytes(plane)[: frame.samples * _BYTES] for plane in frame.planes]
