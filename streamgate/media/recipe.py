"""What the encoder must know of a source besides the plan: `MediaPlan.recipe`, opaque outside media/."""

from __future__ import annotations

from fractions import Fraction

import msgspec


class CutRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """How the video is cut in the stored sample index: its track there; where each segment begins, in ticks of ``timescale`` from
    ``shift`` ticks of the source on; the init segment that belongs to them."""

    track: int
    timescale: int
    shift: int
    starts: tuple[int, ...]
    init: bytes


class VideoRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The video track to encode.

    ``timescale``: ticks per second of every video rendition. ``turn``: degrees to turn clockwise so that the picture
    stands upright (0, 90, 180, 270); ``mirror``: flip it left-right after turning. ``matrix``: the YUV matrix of the
    source as the scale filter names it; ``wide``: high dynamic range (PQ or HLG). ``thin``: source frames come faster
    than this rate per second and are thinned to it (0: all are kept). ``unstamped``: the container says when pictures are
    decoded, not when they are shown; ``held``: how many the decoder then holds back. ``cut``: where the sample index tells
    of the track, so that a piece of it can be had without opening the source. ``max_pixels`` bounds the decoder.
    """

    index: int
    timescale: int
    nominal_ticks: int
    turn: int = 0
    mirror: bool = False
    interlaced: bool = False
    matrix: str = "bt709"
    wide: bool = False
    thin: int = 0
    unstamped: bool = False
    held: int = 0
    cut: CutRecipe | None = None
    max_pixels: int = 1 << 30


class AudioRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """One audio track. ``start``: the first sample's time in the source (seconds, as a fraction)."""

    index: int
    rate: int
    start: tuple[int, int]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """``origin``: the source time (seconds, as a fraction) that is time 0 of the film."""

    origin: tuple[int, int]
    video: VideoRecipe | None = None
    audio: tuple[AudioRecipe, ...] = ()

    def zero(self) -> Fraction:
        """``origin`` as a number."""
        return Fraction(*self.origin)


def pack(recipe: Recipe) -> bytes:
    """For `MediaPlan.recipe`."""
    return msgspec.msgpack.encode(recipe)


def unpack(data: bytes) -> Recipe:
    """The inverse of `pack`; raises `msgspec.ValidationError`."""
    return msgspec.msgpack.decode(data, type=Recipe)
