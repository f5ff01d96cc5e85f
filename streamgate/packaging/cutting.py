"""Tracks of an uploaded film as they are shown, cut where they allow into segments that are bytes of the upload: the same for every
container.

Times are in ticks of the track; 0 is the film's beginning for all tracks. Video is cut at the first key frame at or after each
multiple of the target; sound at the first frame at or after each cut of the video.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging import cmaf, opus
from streamgate.packaging.heads import stored_track
from streamgate.packaging.keyframes import Looking, closed, verified
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.sampleentry import Description
from streamgate.packaging.sampletables import Flags, Numbers, Samples
from streamgate.packaging.segments import MAX_SEGMENT, StoredTrack, stored

MAX_SEGMENT_S = 20
ROUNDING_S = Fraction(2, 1000)
"""What an edit may differ from a frame's time by, since movies count in milliseconds."""

_TRIED = 24
"""Key frames that a track may begin with, before it is given up."""


@dataclass(frozen=True, slots=True)
class IndexedTrack:
    """A track that can be served as it is.

    ``number``: its place among the tracks of the file, from 0. ``boundaries``: where each segment begins, and last the end, in
    ticks. ``bandwidth`` and ``average_bandwidth`` in bits per second. ``init``: its init segment. ``rotation`` in degrees
    clockwise. ``frames``: samples that are served; ``times``: when they are shown, ascending, in ticks.
    ``needed``: for each segment the end of the bytes of the source that say all of it, those that show where the next begins
    included; never less than that of the segment before.
    """

    number: int
    kind: str
    codec: str
    timescale: int
    boundaries: tuple[int, ...]
    bandwidth: int
    average_bandwidth: int
    init: bytes
    width: int | None
    height: int | None
    frame_rate: tuple[int, int] | None
    rotation: int
    channels: int | None
    sample_rate: int | None
    language: str | None
    default: bool
    frames: int
    times: NDArray[np.int64]
    needed: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """What of a source can be served as it is. ``refused``: the other tracks, as (number, code, sentence). ``origin``: the source's
    time, in seconds, that is the film's time 0. ``blob``: the index to be stored, for `segments.StoredIndex`. ``ends``: when sound
    that is not served as it is ends, by number, in seconds of the source, where the container itself does not say. ``cut_off``:
    whether the source ends in the middle of something."""

    video: IndexedTrack | None
    audio: tuple[IndexedTrack, ...]
    refused: tuple[tuple[int, str, str], ...]
    origin: Fraction
    blob: bytes
    ends: Mapping[int, Fraction] = field(default_factory=dict)
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class ShownTrack:
    """A track as it is shown. ``begins``: when each sample is shown; ``edit``: media time of the edit in the init segment, also
    what composition offsets are raised by; ``decoded``: decoding times, so that a key frame's is its time of being shown;
    ``looked_at``: whether its key frames need not be looked at any more."""

    number: int
    about: Description
    samples: Samples
    begins: Numbers
    decoded: Numbers
    edit: int
    looked_at: bool = False

    def moved(self, ticks: int) -> ShownTrack:
        return replace(self, begins=self.begins - ticks, decoded=self.decoded - ticks) if ticks else self

    @property
    def start(self) -> Fraction:
        """When it is first seen or heard, in seconds."""
        hidden = self.edit if self.about.kind == "audio" else 0
        return Fraction(int(self.begins.min()) + hidden, self.about.timescale)


def index_of(
    read: Read,
    size: int,
    tracks: Sequence[ShownTrack],
    refused: Sequence[tuple[int, str, str]],
    target: Fraction,
    heard: Mapping[int, Fraction] | None = None,
) -> SourceIndex:
    """Cut tracks of a source of ``size`` bytes, video first, and write their index; ``target`` in seconds.

    ``refused``: tracks that cannot be served as they are. ``heard``: when tracks of sound are first heard, by number, in seconds of
    the source: those that cannot be served either are part of the film, which begins with the earliest of all.
    Raises `IndexRefused` when none is left.
    """
    if not tracks:
        _, code, detail = refused[0] if refused else (0, "codec", "The file has no track that can be served as it is.")
        raise IndexRefused(code, detail)
    origin = min(track.start for track in tracks)
    others = [time for number, time in (heard or {}).items() if all(number != track.number for track in tracks)]
    if others and min(others) < origin - ROUNDING_S:
        origin = min(others)
    kept = [track.moved(round(origin * track.about.timescale)) for track in tracks]
    return _cut(read, size, kept, tuple(refused), origin, target)


def _cut(
    read: Read,
    size: int,
    kept: Sequence[ShownTrack],
    refused: tuple[tuple[int, str, str], ...],
    origin: Fraction,
    target: Fraction,
) -> SourceIndex:
    """Cut the tracks, video first, and write the index."""
    finished: list[IndexedTrack] = []
    written = []
    no: list[tuple[int, str, str]] = list(refused)
    cuts: list[Fraction] = []
    for track in kept:
        try:
            if track.about.kind == "video":
                starts, keys = _video_cuts(read, track, target)
                cuts = [Fraction(int(track.begins[n]), track.about.timescale) for n in starts]
                made, kept_as = _segments(replace(track, samples=replace(track.samples, keys=keys)), starts, target)
            else:
                made, kept_as = _segments(track, _audio_cuts(track, cuts, target), target)
        except IndexRefused as error:
            no.append((track.number, error.code, error.detail))
            continue
        finished.append(made)
        written.append(kept_as)
    if not finished:
        raise IndexRefused(*no[-1][1:])
    return SourceIndex(
        video=next((track for track in finished if track.kind == "video"), None),
        audio=tuple(track for track in finished if track.kind == "audio"),
        refused=tuple(no),
        origin=origin,
        blob=stored(size, written),
    )


def video_track(
    number: int, about: Description, samples: Samples, delay: int, look: Looking, *, far: bool
) -> ShownTrack:
    """A track of pictures, from its first closed key frame on; ``delay``: ticks before its edit; ``look``: at its samples.

    Raises `IndexRefused`.
    """
    keys, looked_at = verified(samples, look, far=far)
    found = [int(n) for n in np.flatnonzero(closed(samples, keys))[:_TRIED]]
    first = next((n for n in found if look(n)), None)
    if first is None:
        raise IndexRefused(
            "no_keyframes", "The video has no key frame that it can begin with; every rendition is encoded."
        )
    samples = replace(samples, keys=keys).part(first, len(samples))
    begins = _later(samples.shown, delay - about.edit.begin)
    hidden = delay - int(begins[0])
    if hidden > ROUNDING_S * about.timescale:
        raise IndexRefused("edit_preroll", "The video begins between two key frames; every rendition is encoded.")
    if hidden > 0:
        begins = _later(begins, hidden)
    decoded = _later(samples.decoded, int(begins[0] - samples.decoded[0]))
    return ShownTrack(number, about, samples, begins, decoded, int((decoded - begins).max()), looked_at)


def audio_track(number: int, about: Description, samples: Samples, delay: int) -> ShownTrack:
    """Frames that end before the edit begins are dropped; what is left of one is hidden by an edit of its own."""
    begins = _later(samples.decoded, delay - about.edit.begin)
    heard = begins + samples.durations > delay
    if not heard.any():
        raise IndexRefused("multi_edit", "The track's edit shows none of it.")
    first = int(heard.argmax())
    samples, begins = samples.part(first, len(samples)), begins[first:]
    samples = replace(samples, keys=np.ones(len(samples), np.bool_))  # whatever the tables say of sound
    rest = max(0, delay - int(begins[0]))
    if about.codec == "opus":
        about = replace(about, entry=opus.entry(about.config, rest))
    return ShownTrack(number, about, samples, begins, _later(begins, rest), rest)


def _later(times: Numbers, ticks: int) -> Numbers:
    """Times so much later: the same array where they are not, as nobody writes into one."""
    return times + ticks if ticks else times


def _video_cuts(read: Read, track: ShownTrack, target: Fraction) -> tuple[list[int], Flags]:
    """The samples that segments begin with, the first closed, verified key frame at or after each multiple of the target; and all
    closed key frames."""
    samples, scale = track.samples, track.about.timescale
    look = None if track.looked_at else Looking(read, samples, track.about.codec, track.about.config)
    candidates = np.flatnonzero(closed(replace(samples, shown=track.begins), samples.keys))
    times = track.begins[candidates].tolist()
    step = target * scale
    starts = [0]
    at = 0
    while True:
        due = (int(track.begins[starts[-1]]) * step.denominator // step.numerator + 1) * step.numerator
        at = bisect_left(times, -(-due // step.denominator), at + 1)
        while look is not None and at < len(candidates) and not look(int(candidates[at])):
            at += 1
        if at >= len(candidates):
            break
        starts.append(int(candidates[at]))
    keys = np.zeros(len(samples), np.bool_)
    keys[candidates] = True
    return starts, keys


def _audio_cuts(track: ShownTrack, cuts: Sequence[Fraction], target: Fraction) -> list[int]:
    scale = track.about.timescale
    if not cuts:
        end = int(track.begins[-1]) // scale
        cuts = [n * target for n in range(int(end / target) + 1)]
    ticks = np.array([-(-cut.numerator * scale // cut.denominator) for cut in cuts], np.int64)
    found = np.searchsorted(track.begins, ticks)
    return sorted({0, *(int(n) for n in found if n < len(track.begins))})


def _segments(track: ShownTrack, cuts: list[int], target: Fraction) -> tuple[IndexedTrack, StoredTrack]:
    about, samples, scale = track.about, track.samples, track.about.timescale
    starts = np.array(cuts, np.int64)
    finish = int((track.begins + samples.durations).max())
    boundaries = (*track.begins[starts].tolist(), finish)
    lengths = np.diff(np.array(boundaries))
    if int(lengths.max()) > MAX_SEGMENT_S * scale:
        raise IndexRefused(
            "long_gop",
            f"The key frames of the film are more than {MAX_SEGMENT_S} seconds apart; every rendition is encoded.",
        )
    bodies = np.add.reduceat(samples.sizes, starts)
    if int(bodies.max()) > MAX_SEGMENT or track.edit >= 1 << 31:
        raise IndexRefused(
            "big_segment", "The film needs too many bytes between two key frames; every rendition is encoded."
        )
    kept_as, bits = stored_track(
        track.number,
        starts,
        decoded=track.decoded,
        durations=samples.durations,
        sizes=samples.sizes,
        keys=samples.keys,
        offsets=_offsets(track),
        places=samples.offsets,
    )
    bits = bits * 8
    whole = lengths >= target * scale / 2
    rates = bits[whole] * scale / lengths[whole] if whole.any() else bits.sum() * scale / lengths.sum()
    made = IndexedTrack(
        number=track.number,
        kind=about.kind,
        codec=about.codec,
        timescale=scale,
        boundaries=boundaries,
        bandwidth=int(np.max(rates)) + 1,
        average_bandwidth=int(bits.sum() * scale / max(1, int(lengths.sum()))) + 1,
        init=cmaf.init_segment(_copied(track)),
        width=about.width,
        height=about.height,
        frame_rate=(about.frame_rate or _frame_rate(samples, scale)) if about.kind == "video" else None,
        rotation=about.rotation,
        channels=about.channels,
        sample_rate=about.sample_rate,
        language=about.language,
        default=about.enabled,
        frames=len(samples),
        times=np.sort(track.begins),
        needed=_needed(samples, starts),
    )
    return made, kept_as


def _offsets(track: ShownTrack) -> Numbers:
    """Composition offsets, not negative."""
    found = track.begins - track.decoded
    found += track.edit
    return found


def _needed(samples: Samples, starts: Numbers) -> Numbers:
    ends = samples.offsets + samples.sizes
    whole = np.maximum.reduceat(ends, starts)
    found: Numbers = np.maximum.accumulate(np.maximum(whole, np.append(ends[starts[1:]], 0)))
    return found


def _copied(track: ShownTrack) -> cmaf.CopiedTrack:
    about = track.about
    return cmaf.CopiedTrack(
        kind=about.kind,
        timescale=about.timescale,
        entry=about.entry,
        edit=track.edit,
        matrix=about.matrix,
        width=about.width or 0,
        height=about.height or 0,
        language=about.language,
    )


def _frame_rate(samples: Samples, scale: int) -> tuple[int, int]:
    """Frames in a second: those of the usual distance, where nearly all have it; else on average."""
    usual = int(np.median(samples.durations))
    if np.count_nonzero(samples.durations == usual) >= 0.9 * len(samples):
        rate = Fraction(scale, usual)
    else:
        rate = Fraction(len(samples) * scale, int(samples.durations.sum()))
    rate = rate.limit_denominator(1001)
    return rate.numerator, rate.denominator
