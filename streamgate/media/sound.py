"""The sound of a film on one global grid of samples: any range of it can be had by itself, and ranges fit each other."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
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

_SETTLE_S = 5
"""Seconds of sound from whose timestamps its place is concluded where each alone is too coarse."""

_STEPS_BACK = (_WARM_UP, Fraction(3), Fraction(15), Fraction(60))
_PIECE = 4096

_Piece = tuple[Fraction | None, list[bytes]]
"""The sample at which it begins by its timestamp, and its samples by channel."""


class SourceSamples:
    """One track as float samples at the source's rate; sample 0 is time 0 of the film.

    ``read`` goes forwards only. What the source lacks (before its start, gaps, after its end) is silence. Wherever reading began,
    a sample has the same number, give or take one, also where timestamps are coarser than samples (milliseconds in Matroska).
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
                pieces = self._placed(container)
                first = next(pieces, None)
                if first is not None and first[0] <= begin:
                    yield first
                    yield from pieces
                    return
        with self._source.open(MAX_PIXELS) as container:
            yield from self._placed(container)

    def _placed(self, container: InputContainer) -> Iterator[tuple[int, list[bytes]]]:
        """Decoded pieces with the number of their first sample."""
        pieces = self._decode(container)
        following: Fraction | None = None
        for exact, planes in chain(self._settled(pieces), pieces):
            if following is None:
                first = (Fraction(*self._recipe.start) - self._zero) * self._recipe.rate
                following = first if exact is None else exact
            elif exact is not None and abs(exact - following) > self._tolerance():
                following = exact
            yield round(following), planes
            following += len(planes[0]) // _BYTES

    def _settled(self, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        """The first pieces, the very first one placed where all their timestamps agree that it lies.

        A timestamp is rounded by half a unit at most, so each says between which samples the first one lies; but not its own, as
        decoders give less than a whole frame where they begin.
        """
        held: list[_Piece] = []
        between: tuple[Fraction, Fraction] | None = None
        count = 0
        for exact, planes in pieces:
            half = self._base * self._recipe.rate / 2
            held.append((exact, planes))
            if half <= 1 / 2:
                break
            if exact is not None and len(held) > 1:
                low, high = exact - count - half, exact - count + half
                if between is not None:
                    low, high = max(low, between[0]), min(high, between[1])
                if low > high:
                    # A gap: what comes after it has its own time.
                    break
                between = low, high
            count += len(planes[0]) // _BYTES
            if count >= _SETTLE_S * self._recipe.rate:
                break
        if between is not None:
            place = (between[0] + between[1]) / 2
            stated = held[0][0]
            if stated is None or abs(stated - place) <= self._tolerance():
                held[0] = (place, held[0][1])
        yield from held

    def _decode(self, container: InputContainer) -> Iterator[_Piece]:
        """Decoded pieces with the sample at which they begin by their timestamp, None where they have none."""
        stream = container.streams[self._recipe.index]
        only(container, stream.index)
        self._base = base = stream.time_base or Fraction(1, self._recipe.rate)
        for packet in packets(container, stream.index):
            for frame in self._frames(packet):
                exact = None
                if frame.pts is not None:
                    exact = (frame.pts * (frame.time_base or base) - self._zero) * self._recipe.rate
                for planes in self._convert(frame):
                    yield exact, planes
                    exact = None

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
