"""Planning a film: probe, timeline, ladder, and the init segment of every rendition, before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from msgspec.structs import replace

from streamgate.domain.asset import FailureCode, MediaWarning
from streamgate.media import audio as audio_encoding
from streamgate.media import captions
from streamgate.media import video as video_encoding
from streamgate.media.cuts import audio_boundaries, chunks, video_boundaries
from streamgate.media.decoding import frame_slot
from streamgate.media.ladder import Shape, audio_rung, sizes, video_rung
from streamgate.media.languages import bcp47
from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.media.opening import Source, refused
from streamgate.media.order import held_back
from streamgate.media.probe import AudioFound, Probe, VideoFound, probe
from streamgate.media.recipe import AudioRecipe, Recipe, VideoRecipe, pack
from streamgate.media.scan import PacketTimes, scan
from streamgate.media.storyboard import layout
from streamgate.packaging.cmaf import AudioTrack, VideoTrack, init_segment
from streamgate.packaging.codecs import aac_codec, avc_codec

SEGMENTS_PER_CHUNK = 3

AUDIO_ALONE = (64_000,)
"""Further rates, in bits per second of stereo, that a film without pictures gets."""

_FINEST = 10_000
_COARSEST = 100_000_000
_THINNED = Fraction(102, 100)
_USUAL_RATE = Fraction(25)
_FASTEST = Fraction(1000)
_MOOF_SHARE = 8_000
"""Bits per second that boxes around the samples take."""


def make_plan(source: Source, ladder: LadderSettings, limits: Limits) -> MediaPlan:
    """Plan a film. Raises `MediaRefused` with a code of the closed list."""
    if source.size == 0:
        raise refused(FailureCode.MALFORMED_MEDIA, "The file is empty. Upload it again.")
    if source.size > limits.max_size:
        raise refused(FailureCode.TOO_LARGE, "The file is larger than films may be here.")
    found = probe(source, limits)
    indexes = [track.index for track in (found.video, *found.audio) if track is not None]
    scanned = scan(source, limits.max_pixels, indexes)
    packets = scanned.packets
    warnings = list(found.warnings)
    if any(track.damaged for track in packets.values()):
        warnings.append(MediaWarning("damaged", "Parts of the file are damaged or missing; what is there is played."))
    origin = _origin(found, packets)
    film = _film(found.video, packets, origin, ladder, limits) if found.video is not None else None
    video = found.video.index if film is not None and found.video is not None else None
    held = held_back(source, limits.max_pixels, video) if video is not None and packets[video].unstamped else 0
    duration = max(track.end() for track in packets.values()) - origin
    if duration > limits.max_duration_s:
        raise refused(FailureCode.TOO_LONG, f"The film is longer than {limits.max_duration_s / 3600:g} hours.")
    if film is None and not any(packets[track.index].times for track in found.audio):
        raise refused(FailureCode.MALFORMED_MEDIA)
    step = Fraction(ladder.segment_s).limit_denominator(1000)
    cuts = film.cuts() if film is not None else [Fraction(0)]
    renditions = list(film.renditions(ladder)) if film is not None else []
    bitrates = AUDIO_ALONE if film is None else ()
    for number, track in enumerate(found.audio, start=1):
        if packets[track.index].times:
            sound = _Sound(track, number, packets[track.index], origin, default=track.index == _default(found.audio))
            renditions += sound.renditions(cuts, step, ladder, bitrates)
    segments = max(len(rendition.boundaries) for rendition in renditions) - 1
    width, height = (found.video.width, found.video.height) if found.video is not None else (None, None)
    whole = max(rendition.boundaries[-1] / rendition.timescale for rendition in renditions)
    return MediaPlan(
        tracks=found.tracks,
        container=found.container,
        duration=whole,
        width=width,
        height=height,
        renditions=tuple(renditions),
        chunks=chunks(segments, SEGMENTS_PER_CHUNK),
        recipe=pack(_recipe(found, packets, origin, film, held, limits)),
        warnings=tuple(warnings),
        captions=captions.tracks(scanned.captions, origin),
        storyboard=layout(width, height, whole) if width and height else None,
    )


@dataclass(frozen=True, slots=True)
class _Film:
    """The video track on the film's clock."""

    found: VideoFound
    timescale: int
    boundaries: tuple[int, ...]
    rate: Fraction
    nominal: int
    thin: int

    def cuts(self) -> list[Fraction]:
        return [Fraction(tick, self.timescale) for tick in self.boundaries[:-1]]

    def renditions(self, ladder: LadderSettings) -> list[PlannedRendition]:
        shape = Shape(self.found.width, self.found.height, self.rate)
        return [self._rendition(width, height, ladder) for width, height in sizes(shape, ladder.rungs)]

    def _rendition(self, width: int, height: int, ladder: LadderSettings) -> PlannedRendition:
        rung = video_rung(width, height, self.rate, ladder)
        config = video_encoding.configuration(rung, self.timescale)
        reorder = video_encoding.reorder_ticks(self.nominal)
        track = VideoTrack(timescale=self.timescale, width=width, height=height, avcc=config, reorder=reorder)
        return PlannedRendition(
            name=f"{min(width, height)}p",
            kind="video",
            codecs=avc_codec(config),
            timescale=self.timescale,
            boundaries=self.boundaries,
            # The decoder's buffer may be drained once on top of the peak rate within one segment.
            bandwidth=rung.maxrate + ceil(rung.bufsize / ladder.segment_s) + _MOOF_SHARE,
            config=config,
            init=init_segment(track),
            rung=rung,
            width=width,
            height=height,
            frame_rate=rung.frame_rate,
        )


def _origin(found: Probe, packets: dict[int, PacketTimes]) -> Fraction:
    """The source time at which the film begins: its earliest picture or audible sample."""
    begins = [track.first for track in found.audio if packets[track.index].times]
    if found.video is not None and packets[found.video.index].times:
        track = packets[found.video.index]
        begins.append(min(track.times) * track.base)
    if not begins:
        raise refused(FailureCode.MALFORMED_MEDIA)
    return min(begins)


def _timescale(base: Fraction) -> int:
    """Ticks in which every time of the source is a whole number, where that is reasonable."""
    if base.denominator > _COARSEST:
        return 90_000
    return base.denominator * ceil(Fraction(_FINEST, base.denominator))


def _film(
    found: VideoFound, packets: dict[int, PacketTimes], origin: Fraction, ladder: LadderSettings, limits: Limits
) -> _Film | None:
    track = packets[found.index]
    if not track.times:
        return None
    timescale = _timescale(track.base)
    scale, shift = track.base * timescale, origin * timescale
    times = sorted({round(time * scale - shift) for time in track.times})
    if times[-1] > limits.max_duration_s * timescale:
        raise refused(FailureCode.TOO_LONG, f"The film is longer than {limits.max_duration_s / 3600:g} hours.")
    times[0] = 0
    rate = _frame_rate(times, timescale, found.average_rate)
    nominal = max(1, round(timescale / rate))
    length = round(track.last_duration * scale) or nominal
    end = times[-1] + max(1, length)
    thin = ladder.max_frame_rate if len(times) * timescale > end * ladder.max_frame_rate * _THINNED else 0
    if thin:
        recipe = VideoRecipe(index=0, timescale=timescale, nominal_ticks=nominal, thin=thin)
        times = [time for before, time in zip([None, *times], times, strict=False)
                 if before is None or frame_slot(before, recipe) != frame_slot(time, recipe)]  # fmt: skip
        rate = Fraction(thin)
        nominal = max(1, round(timescale / rate))
    boundaries = video_boundaries(times, end, round(ladder.segment_s * timescale))
    return _Film(found, timescale, boundaries, rate, nominal, thin)


def _frame_rate(times: Sequence[int], timescale: int, stated: Fraction | None) -> Fraction:
    """Frames per second, as the container states it where its frames agree."""
    if len(times) < 2:
        return stated if stated and 1 <= stated <= _FASTEST else _USUAL_RATE
    counted = Fraction((len(times) - 1) * timescale, times[-1] - times[0])
    if stated and abs(stated - counted) <= counted / 100:
        counted = stated
    return min(max(counted.limit_denominator(1001), Fraction(1, 60)), _FASTEST)


def _default(found: Sequence[AudioFound]) -> int:
    """The index of the audio track that plays when nobody chooses."""
    return next((track.index for track in found if track.default), found[0].index)


@dataclass(frozen=True, slots=True)
class _Sound:
    """One audio track on the film's clock; ``number`` counts from 1."""

    found: AudioFound
    number: int
    packets: PacketTimes
    origin: Fraction
    default: bool

    def renditions(
        self, cuts: Sequence[Fraction], step: Fraction, ladder: LadderSettings, bitrates: Sequence[int]
    ) -> list[PlannedRendition]:
        """One at the ladder's rate, and before it those of ``bitrates`` (bits per second of stereo) that are clearly lower."""
        lower = [rate for rate in bitrates if rate * 3 <= ladder.audio_bitrate * 2]
        made = [self._rendition(cuts, step, replace(ladder, audio_bitrate=rate), f"-{rate // 1000}k") for rate in lower]
        return [*made, self._rendition(cuts, step, ladder, "")]

    def _rendition(
        self, cuts: Sequence[Fraction], step: Fraction, ladder: LadderSettings, suffix: str
    ) -> PlannedRendition:
        found = self.found
        rung = audio_rung(found.rate, found.channels, found.index, ladder)
        config = audio_encoding.configuration(rung)
        samples = max(1, round((self.packets.end() - self.origin) * rung.sample_rate))
        track = AudioTrack(
            sample_rate=rung.sample_rate,
            channels=rung.channels,
            config=config,
            bitrate=rung.bitrate,
            language=found.language,
        )
        return PlannedRendition(
            name=f"audio-{self.number}{suffix}",
            kind="audio",
            codecs=aac_codec(config),
            timescale=rung.sample_rate,
            boundaries=audio_boundaries(cuts, samples, rung.sample_rate, step),
            bandwidth=rung.bitrate * 5 // 4 + _MOOF_SHARE,
            config=config,
            init=init_segment(track),
            rung=rung,
            channels=rung.channels,
            sample_rate=rung.sample_rate,
            language=bcp47(found.language),
            label=found.title,
            default=self.default,
            track=self.number,
        )


def _recipe(
    found: Probe, packets: dict[int, PacketTimes], origin: Fraction, film: _Film | None, held: int, limits: Limits
) -> Recipe:
    video = None
    if film is not None:
        shape = film.found
        video = VideoRecipe(
            index=shape.index,
            timescale=film.timescale,
            nominal_ticks=film.nominal,
            turn=shape.turn,
            mirror=shape.mirror,
            interlaced=shape.interlaced,
            matrix=shape.matrix,
            wide=shape.wide,
            thin=film.thin,
            unstamped=packets[shape.index].unstamped,
            held=held,
            max_pixels=limits.max_pixels,
        )
    audio = []
    for track in found.audio:
        times = packets[track.index]
        start = (times.first or 0) * times.base
        coarse = times.base * track.rate > 1
        audio.append(
            AudioRecipe(
                index=track.index,
                rate=track.rate,
                start=(start.numerator, start.denominator),
                quantum=track.frame if coarse else 1,
            )
        )
    return Recipe(origin=(origin.numerator, origin.denominator), video=video, audio=tuple(audio))
