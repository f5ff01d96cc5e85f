"""Decoded pictures of a film from any time on, on the film's own clock, whatever the container's index is worth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from streamgate.domain.asset import FailureCode
from streamgate.media.opening import Source, refused
from streamgate.media.order import ShowingTimes
from streamgate.media.recipe import Recipe, VideoRecipe

MAX_DAMAGED = 2000
"""So many broken packets in one chunk mean that the file is noise."""

_STEPS_BACK = (Fraction(0), Fraction(2), Fraction(12), Fraction(60))
"""Seconds before the wanted time at which a key frame is looked for, until one lies early enough; then the beginning."""

_DECODER_THREADS = 8


def threads_for_decoding() -> int:
    """As many as there are processors to run on, within reason: each holds pictures of its own."""
    return max(1, min(_DECODER_THREADS, len(os.sched_getaffinity(0))))


def only(container: InputContainer, index: int) -> None:
    """Let the demuxer skip the bytes of every other track."""
    for stream in container.streams:
        if stream.index != index:
            stream.discard = Discard.all


def seek(container: InputContainer, index: int, time: Fraction) -> bool:
    """Go to the key frame of a track at or before ``time`` (source seconds); False when the file cannot be searched."""
    stream = container.streams[index]
    base = stream.time_base or Fraction(1, 1000)
    try:
        container.seek(int(time / base), stream=stream, backward=True)
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def packets(container: InputContainer, index: int) -> Iterator[Packet[Stream]]:
    """The packets of a track and the flush packet at its end; a file that breaks off ends early."""
    try:
        yield from container.demux(container.streams[index])
    except (av.error.InvalidDataError, EOFError):
        return


def decoded(packet: Packet[Stream]) -> Sequence[object] | None:
    """The frames that a packet yields; None when it cannot be decoded. `MemoryError` is raised.

    Empty packets are left out: Ogg has them where a picture stays, and libav takes them for a mistake of its caller.
    """
    if not packet.size and packet.dts is not None:
        return ()
    try:
        return packet.decode()
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return None


class Pictures:
    """The video track of a film as (tick, picture), ticks on the film's clock, strictly ascending.

    ``damaged`` counts packets that could not be decoded so far. Raises `MediaRefused` when there are too many.
    """

    def __init__(self, source: Source, recipe: Recipe) -> None:
        assert recipe.video is not None
        self._source = source
        self._recipe: VideoRecipe = recipe.video
        self._zero = recipe.zero()
        self.damaged = 0

    def since(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """From the last picture at or before tick ``start`` that can be reached (or the film's first) to the end."""
        if start > 0:
            wanted = self._zero + Fraction(start, self._recipe.timescale)
            for step in _STEPS_BACK:
                with self._source.open(self._recipe.max_pixels) as container:
                    if not seek(container, self._recipe.index, wanted - step):
                        break
                    frames = self._kept(self._decode(container))
                    first = next(frames, None)
                    if first is not None and first[0] <= start:
                        yield first
                        yield from frames
                        return
        with self._source.open(self._recipe.max_pixels) as container:
            yield from self._kept(self._from_zero(self._decode(container)))

    def all_of(self, excerpt: Source, *, from_zero: bool) -> Iterator[tuple[int, VideoFrame]]:
        """The pictures of a file that begins with what is wanted; ``from_zero``: that is the film's beginning."""
        with excerpt.open(self._recipe.max_pixels) as container:
            frames = self._decode(container)
            yield from self._kept(self._from_zero(frames) if from_zero else frames)

    def _from_zero(self, frames: Iterator[tuple[int, VideoFrame]]) -> Iterator[tuple[int, VideoFrame]]:
        """A first picture that begins late is shown from the beginning."""
        for _, frame in frames:
            yield 0, frame
            break
        yield from frames

    def _kept(self, frames: Iterator[tuple[int, VideoFrame]]) -> Iterator[tuple[int, VideoFrame]]:
        latest: int | None = None
        slot: int | None = None
        for tick, frame in frames:
            if latest is not None and tick <= latest:
                continue
            latest = tick
            if self._recipe.thin:
                last, slot = slot, frame_slot(tick, self._recipe)
                if slot == last:
                    continue
            yield tick, frame

    def _decode(self, container: InputContainer) -> Iterator[tuple[int, VideoFrame]]:
        stream = container.streams[self._recipe.index]
        assert isinstance(stream, VideoStream)
        only(container, stream.index)
        stream.codec_context.thread_count = threads_for_decoding()
        stream.thread_type = "AUTO"
        ticks = Ticks(stream.time_base or Fraction(1, 1000), self._recipe.timescale, self._zero)
        base = Fraction(1, self._recipe.timescale)
        following = 0
        shown = ShowingTimes(self._recipe.held) if self._recipe.unstamped else None
        for packet in packets(container, stream.index):
            if shown is not None and packet.dts is not None and packet.size:
                shown.read(packet.dts)
            for frame in self._frames(packet):
                time = frame.pts if frame.pts is not None else frame.dts
                if shown is not None:
                    time = shown.of(frame.dts)
                tick = following if time is None else ticks.of(time)
                following = tick + self._recipe.nominal_ticks
                frame.pts, frame.time_base = tick, base
                # What the source chose for this picture must not reach the encoder.
                frame.pict_type = PictureType.NONE
                yield tick, frame

    def _frames(self, packet: Packet[Stream]) -> list[VideoFrame]:
        frames = decoded(packet)
        if frames is None:
            self.damaged += 1
            if self.damaged > MAX_DAMAGED:
                raise refused(FailureCode.MALFORMED_MEDIA)
        return [frame for frame in frames or () if isinstance(frame, VideoFrame)]


class Ticks:
    """Times of a track, in units of ``base`` seconds, as ticks of the film: ``timescale`` a second, 0 at ``zero`` (source seconds).

    In whole numbers, since it is asked for each picture.
    """

    def __init__(self, base: Fraction, timescale: int, zero: Fraction) -> None:
        scale, shift = base * timescale, zero * timescale
        self._times = scale.numerator * shift.denominator
        self._less = shift.numerator * scale.denominator
        self._over = scale.denominator * shift.denominator

    def of(self, time: int) -> int:
        """The nearest tick, of two as near the even one."""
        tick, rest = divmod(time * self._times - self._less, self._over)
        return tick + (2 * rest > self._over or (2 * rest == self._over and tick % 2))


def frame_slot(tick: int, recipe: VideoRecipe) -> int:
    """Which slot of 1/``thin`` second a picture falls into: the first of each slot is kept."""
    return tick * recipe.thin // recipe.timescale
