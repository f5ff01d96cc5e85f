"""Which encoded renditions a film gets, and every number of their encoders, from the film's own shape alone."""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec

from streamgate.media.model import AudioRung, LadderSettings, VideoRung

CLEARLY = Fraction(9, 8)
"""A source this much above the highest (or below the lowest) rung gets a rendition of its own size as well."""

GOP = 1 << 20
"""Key frames come only where segments begin, so the encoder's own limit is out of reach."""

_REFERENCE_RATE = 5_500_000
_REFERENCE_PIXELS = 1920 * 1080
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

_LEVELS = (
    ("3.0", 40_500, 1_620, 8_100, 10_000),
    ("3.1", 108_000, 3_600, 18_000, 14_000),
    ("3.2", 216_000, 5_120, 20_480, 20_000),
    ("4.0", 245_760, 8_192, 32_768, 20_000),
    ("4.1", 245_760, 8_192, 32_768, 50_000),
    ("4.2", 522_240, 8_704, 34_816, 50_000),
    ("5.0", 589_824, 22_080, 110_400, 135_000),
    ("5.1", 983_040, 36_864, 184_320, 240_000),
    ("5.2", 2_073_600, 36_864, 184_320, 240_000),
    ("6.0", 4_177_920, 139_264, 696_320, 240_000),
    ("6.2", 16_711_680, 139_264, 696_320, 800_000),
)
"""ITU-T H.264 table A-1: level, MaxMBPS, MaxFS, MaxDpbMbs, MaxBR (kbit/s)."""

_FRAMES_HELD = 4


class Shape(msgspec.Struct, frozen=True):
    """The upright picture in square pixels, and how many come in a second."""

    width: int
    height: int
    frame_rate: Fraction

    @property
    def short(self) -> int:
        """The short side."""
        return min(self.width, self.height)


def even(value: Fraction | float) -> int:
    """The nearest even number, at least 2."""
    return max(2, 2 * round(float(value) / 2))


def even_within(value: int) -> int:
    """The greatest even number that is not above ``value``, at least 2."""
    return max(2, value // 2 * 2)


def sizes(shape: Shape, rungs: tuple[int, ...]) -> list[tuple[int, int]]:
    """(width, height) of every video rendition, lowest first; none is larger than the source, all are even."""
    used = [rung for rung in sorted(rungs) if rung <= shape.short]
    top = max(rungs)
    made = [_scaled(shape, rung) for rung in used]
    if not used or (shape.short <= top and Fraction(shape.short, used[-1]) > CLEARLY):
        made.append((even_within(shape.width), even_within(shape.height)))
    return made


def _scaled(shape: Shape, short: int) -> tuple[int, int]:
    short = even_within(short)
    other = Fraction(max(shape.width, shape.height) * short, shape.short)
    other_even = min(even(other), even_within(max(shape.width, shape.height)))
    return (short, other_even) if shape.width < shape.height else (other_even, short)


def video_rung(width: int, height: int, frame_rate: Fraction, settings: LadderSettings) -> VideoRung:
    """The encoder of one video rendition. Peak rate grows with the 3/4 power of pixels and the square root of frame rate."""
    rate = min(frame_rate, Fraction(settings.max_frame_rate))
    weight = (width * height / _REFERENCE_PIXELS) ** 0.75 * max(1.0, float(rate) / 30) ** 0.5
    maxrate = max(150_000, 50_000 * round(_REFERENCE_RATE * weight * settings.rate_factor / 50_000))
    profile = "main" if min(width, height) <= 360 else "high"
    return VideoRung(
        width=width,
        height=height,
        frame_rate=(rate.numerator, rate.denominator),
        crf=settings.crf,
        maxrate=maxrate,
        bufsize=maxrate,
        preset=settings.preset,
        profile=profile,
        level=level(width, height, rate, maxrate),
        gop=GOP,
        threads=_threads(min(width, height)),
    )


def level(width: int, height: int, frame_rate: Fraction, maxrate: int) -> str:
    """The lowest H.264 level (from 3.0 on) that holds such a stream with four frames to refer to."""
    across, down = -(-width // 16), -(-height // 16)
    macroblocks = across * down
    for name, per_second, per_frame, held, rate in _LEVELS:
        longest = math.isqrt(8 * per_frame)
        if (
            macroblocks <= per_frame
            and max(across, down) <= longest
            and macroblocks * math.ceil(frame_rate) <= per_second
            and macroblocks * _FRAMES_HELD <= held
            and maxrate <= rate * 1000
        ):
            return name
    return _LEVELS[-1][0]


def _threads(short: int) -> int:
    """Part of the recipe, not of the machine: another number of threads would give another stream."""
    return 2 if short <= 480 else 3 if short <= 720 else 4 if short <= 1080 else 6


def audio_rung(rate: int, channels: int, stream_index: int, settings: LadderSettings) -> AudioRung:
    """AAC-LC, mono or stereo, at the source's sampling rate where AAC players have it, else at 48 kHz or 44.1 kHz."""
    sample_rate = rate if rate in _AAC_RATES else 44100 if rate % 11025 == 0 else 48000
    out = 1 if channels == 1 else 2
    wanted = settings.audio_bitrate if out == 2 else settings.audio_bitrate * 5 // 8
    return AudioRung(
        sample_rate=sample_rate, channels=out, bitrate=min(wanted, 2 * sample_rate * out), stream_index=stream_index
    )
