"""Planning a film: probe, timeline, ladder, and the init segment of every rendition, before anything is encoded."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from msgspec.structs import replace

from streamgate.domain.asset import FailureCode
from streamgate.media import audio as audio_encoding
from streamgate.media import captions
from streamgate.media import video as video_encoding
from streamgate.media.cuts import audio_boundaries, runs, video_boundaries
from streamgate.media.decoding import frame_slot
from streamgate.media.ladder import Shape, audio_rung, sizes, video_rung
from streamgate.media.languages import bcp47
from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.media.opening import Source, refused
from streamgate.media.order import held_back
from streamgate.media.passing import (
    Passing,
    Room,
    audio_rendition,
    index_ahead,
    passing,
    replaces,
    stands_first,
    video_rendition,
)
from streamgate.media.probe import AudioFound, Probe, VideoFound, probe
from streamgate.media.recipe import AudioRecipe, CutRecipe, Recipe, VideoRecipe, pack
from streamgate.media.scan import PacketTimes
from streamgate.media.storyboard import layout
from streamgate.media.timing import Timed, indexed, scanned, tabled
from streamgate.packaging.cmaf import AudioTrack, VideoTrack, init_segment
from streamgate.packaging.codecs import aac_codec, avc_codec
from streamgate.packaging.sampleindex import IndexedTrack

SEGMENTS_PER_RUN = 3
LONGEST_RUN_S = 13.0
"""Seconds beyond which segments are not put together: three of the usual length fit."""

AUDIO_ALONE = (64_000,)
"""Further rates, in bits per second of stereo, that a film without pictures gets."""

_FINEST = 10_000
_COARSEST = 100_000_000
_THINNED = Fraction(102, 100)
_USUAL_RATE = Fraction(25)
_FASTEST = Fraction(1000)
_MOOF_SHARE = 8_000
"""Bits per second that boxes around the samples take."""


def make_plan(source: Source, ladder: LadderSettings, limits: Limits, room: Room | None = None) -> MediaPlan:
    """Plan a film. Raises `MediaRefused` with a code of the closed list. ``room``: where it may be written out if it must be."""
    if source.size == 0:
        raise refused(FailureCode.MALFORMED_MEDIA, "The file is empty. Upload it again.")
    if source.size > limits.max_size:
        raise refused(FailureCode.TOO_LARGE, "The file is larger than films may be here.")
    ahead = index_ahead(source, ladder)
    found = probe(source, limits)
    passed = passing(source, found, ladder, room, ahead)
    if isinstance(passed, str):
        timed = tabled(source, found, ahead, limits) or scanned(source, found, limits)
    else:
        timed = indexed(source, found, passed, limits)
    packets, origin = timed.packets, timed.origin
    film = _pictures(found.video, timed, passed, ladder, limits) if found.video is not None else None
    video = found.video.index if film is not None and found.video is not None else None
    held = held_back(source, limits.max_pixels, video) if video is not None and packets[video].unstamped else 0
    if timed.end - origin > limits.max_duration_s:
        raise refused(FailureCode.TOO_LONG, f"The film is longer than {limits.max_duration_s / 3600:g} hours.")
    renditions = _renditions(found, film, timed, passed, ladder)
    if not renditions:
        raise refused(FailureCode.MALFORMED_MEDIA)
    longest = max(renditions, key=lambda rendition: len(rendition.boundaries))
    edges = [tick / longest.timescale for tick in longest.boundaries]
    width, height = (found.video.width, found.video.height) if found.video is not None else (None, None)
    whole = max(rendition.boundaries[-1] / rendition.timescale for rendition in renditions)
    return MediaPlan(
        tracks=found.tracks,
        container=found.container,
        duration=whole,
        width=width,
        height=height,
        renditions=tuple(renditions),
        # Whoever seeks waits for one chunk: that is the least which stands alone.
        chunks=tuple((number, number + 1) for number in range(len(edges) - 1)),
        runs=runs(len(edges) - 1, SEGMENTS_PER_RUN, edges=edges, most_s=LONGEST_RUN_S),
        recipe=pack(_recipe(found, timed, film, held, limits)),
        warnings=(*found.warnings, *timed.warnings),
        captions=captions.tracks(timed.captions, origin),
        storyboard=layout(width, height, whole) if width and height else None,
        reason=passed if isinstance(passed, str) else passed.reason,
        index=timed.index.blob if timed.index is not None else b"",
        remuxed=() if isinstance(passed, str) else passed.remuxed,
        remuxed_before=0 if isinstance(passed, str) else passed.before,
    )


def _renditions(
    found: Probe, film: _Film | None, timed: Timed, passed: Passing | str, ladder: LadderSettings
) -> list[PlannedRendition]:
    """All renditions in the order of the presentation."""
    step = Fraction(ladder.segment_s).limit_denominator(1000)
    kept = {} if isinstance(passed, str) else passed.audio
    alone = frozenset[int]() if isinstance(passed, str) else passed.heard_everywhere
    source = None if isinstance(passed, str) or found.video is None else passed.video
    cuts = film.cuts() if film is not None else [Fraction(0)]
    if film is None and kept:
        longest = max(kept.values(), key=lambda track: len(track.boundaries))
        cuts = [Fraction(tick, longest.timescale) for tick in longest.boundaries[:-1]]
    renditions = list(film.renditions(ladder, source)) if film is not None else []
    if source is not None and found.video is not None:
        place = 0 if stands_first(source, found.video) else len(renditions)
        renditions.insert(place, video_rendition(source, found.video))
    bitrates = AUDIO_ALONE if film is None and not alone else ()
    for number, track in enumerate(found.audio, start=1):
        default = track.index == default_audio(found.audio)
        if track.index not in alone and timed.packets[track.index].times:
            sound = _Sound(track, number, timed.packets[track.index], timed.origin, default=default)
            renditions += sound.renditions(cuts, step, ladder, bitrates)
        if track.index in kept:
            renditions.append(audio_rendition(kept[track.index], track, number, default=default))
    return renditions


def _pictures(
    found: VideoFound, timed: Timed, passed: Passing | str, ladder: LadderSettings, limits: Limits
) -> _Film | None:
    """The video track, cut where the index says or where its packets allow."""
    if isinstance(passed, str):
        return _film(found, timed.packets, timed.origin, ladder, limits)
    track = passed.video
    assert track is not None
    timescale = _timescale(Fraction(1, track.timescale))
    factor = Fraction(timescale, track.timescale)
    times = [int(track.times[0]), int(track.times[-1])]
    rate = Fraction(*track.frame_rate) if track.frame_rate else _USUAL_RATE
    if len(track.times) > 1 and times[1] > times[0]:
        counted = Fraction((len(track.times) - 1) * track.timescale, times[1] - times[0])
        rate = min(max(counted.limit_denominator(1001), Fraction(1, 60)), _FASTEST)
        if found.average_rate and abs(found.average_rate - counted) <= counted / 100:
            rate = found.average_rate.limit_denominator(1001)
    thin = ladder.max_frame_rate if rate > ladder.max_frame_rate * _THINNED else 0
    rate = Fraction(thin) if thin else rate
    scale = factor.numerator if factor.denominator == 1 else factor
    boundaries = tuple(round(tick * scale) for tick in (0, *track.boundaries[1:]))
    return _Film(found, timescale, boundaries, rate, max(1, round(timescale / rate)), thin)


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

    def renditions(self, ladder: LadderSettings, source: IndexedTrack | None) -> list[PlannedRendition]:
        """One of each size of the ladder, without that for which the source itself stands."""
        shape = Shape(self.found.width, self.found.height, self.rate)
        return [
            self._rendition(*size, ladder)
            for size in sizes(shape, ladder.rungs)
            if source is None or not replaces(source, self.found, size, ladder)
        ]

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
    times = _ticks(track.times, scale, shift)
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


def _ticks(times: array[int], scale: Fraction, shift: Fraction) -> list[int]:
    """Times on another clock, ascending, each once; exact as for every frame that is decoded."""
    if scale.denominator == shift.denominator == 1 and len(times) and max(map(abs, (min(times), max(times)))) < 1 << 40:
        ticks = np.sort(np.frombuffer(times, np.int64) * scale.numerator - shift.numerator)
        distinct: list[int] = ticks[np.append(True, ticks[1:] != ticks[:-1])].tolist()
        return distinct
    return sorted({round(time * scale - shift) for time in times})


def _frame_rate(times: Sequence[int], timescale: int, stated: Fraction | None) -> Fraction:
    """Frames per second, as the container states it where its frames agree."""
    if len(times) < 2:
        return stated if stated and 1 <= stated <= _FASTEST else _USUAL_RATE
    counted = Fraction((len(times) - 1) * timescale, times[-1] - times[0])
    if stated and abs(stated - counted) <= counted / 100:
        counted = stated
    return min(max(counted.limit_denominator(1001), Fraction(1, 60)), _FASTEST)


def default_audio(found: Sequence[AudioFound]) -> int:
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


def _cut(timed: Timed, number: int) -> CutRecipe | None:
    """How the index cuts the video track, where it has it and is one of the source itself."""
    track = timed.index.video if timed.index is not None else None
    if timed.index is None or track is None or track.number != number or timed.remuxed:
        return None
    return CutRecipe(
        track=track.number,
        timescale=track.timescale,
        shift=round(timed.index.origin * track.timescale),
        starts=track.boundaries[:-1],
        init=track.init,
    )


def _recipe(found: Probe, timed: Timed, film: _Film | None, held: int, limits: Limits) -> Recipe:
    packets, origin = timed.packets, timed.origin
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
            cut=_cut(timed, shape.index),
            max_pixels=limits.max_pixels,
        )
    audio = []
    for track in found.audio:
        times = packets.get(track.index)
        if times is None:
            continue
        start = (times.first or 0) * times.base
        audio.append(
            AudioRecipe(
                index=track.index,
                rate=track.rate,
                start=(start.numerator, start.denominator),
            )
        )
    return Recipe(origin=(origin.numerator, origin.denominator), video=video, audio=tuple(audio))
