"""The sample index of an uploaded MP4 or MOV: what of it can be served as it is, cut where it allows, without reading its media.

Times are those of ISO/IEC 14496-12 with the edit applied, in ticks of the track; 0 is the film's beginning for all tracks. Video is
cut at the first key frame at or after each multiple of the target; sound at the first frame at or after each cut of the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging import cmaf
from streamgate.packaging.fragments import Fragments, track_id
from streamgate.packaging.heads import array_head, ranges_of
from streamgate.packaging.keyframes import closed, looking, verified
from streamgate.packaging.mp4boxes import IndexRefused, Read, boxes, movie, needed, unpack, version
from streamgate.packaging.sampleentry import Description, describe, enabled, kind_of
from streamgate.packaging.sampletables import Flags, Numbers, Samples, read_samples
from streamgate.packaging.segments import MAX_SEGMENT, stored

MAX_SEGMENT_S = 20
ROUNDING_S = Fraction(2, 1000)
"""What an edit may differ from a frame's time by, since movies count in milliseconds."""

_TRIED = 24
"""Key frames that a track may begin with, before it is given up."""

__all__ = ["IndexRefused", "IndexedTrack", "Read", "SourceIndex", "index_mp4"]


@dataclass(frozen=True, slots=True)
class IndexedTrack:
    """A track that can be served as it is.

    ``number``: its place among the tracks of the file, from 0. ``boundaries``: where each segment begins, and last the end, in
    ticks. ``bandwidth`` and ``average_bandwidth`` in bits per second. ``init``: its init segment. ``rotation`` in degrees
    clockwise. ``frames``: samples that are served; ``times``: when they are shown, ascending, in ticks.
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


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """What of a source can be served as it is. ``refused``: the other tracks, as (number, code, sentence). ``origin``: the source's
    time, in seconds, that is the film's time 0. ``blob``: the index to be stored, for `segments.StoredIndex`."""

    video: IndexedTrack | None
    audio: tuple[IndexedTrack, ...]
    refused: tuple[tuple[int, str, str], ...]
    origin: Fraction
    blob: bytes


@dataclass(frozen=True, slots=True)
class _Track:
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

    def moved(self, ticks: int) -> _Track:
        return replace(self, begins=self.begins - ticks, decoded=self.decoded - ticks) if ticks else self

    @property
    def start(self) -> Fraction:
        return Fraction(max(0, int(self.begins.min())), self.about.timescale)


def index_mp4(read: Read, size: int, *, segment_s: float = 4.0, far: bool = False) -> SourceIndex:
    """Index a file of ``size`` bytes. ``segment_s``: target length of a segment in seconds. ``far``: each read is a round trip.

    Reads the boxes' headers, the movie box, and the first bytes of key frames. Raises `IndexRefused` when no track can be served as
    it is; what cannot beside one that can is among ``refused``.
    """
    try:
        return _indexed(read, size, Fraction(segment_s).limit_denominator(1000), far)
    except MemoryError:
        raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.") from None


def _indexed(read: Read, size: int, target: Fraction, far: bool) -> SourceIndex:
    whole = movie(read, size)
    content = whole.content
    header = needed(content, b"mvhd")
    (movie_timescale,) = unpack(">I", header, 20 if version(header) == 1 else 12)
    traks = [box.content for box in boxes(content) if box.kind == b"trak"]
    pictures = [n for n, trak in enumerate(traks) if kind_of(trak) == "video"]
    shown = next((n for n in pictures if enabled(traks[n])), pictures[0] if pictures else None)
    fragments = Fragments(read, size, whole) if whole.fragments else None
    refused: list[tuple[int, str, str]] = []
    video: _Track | None = None
    audio: list[_Track] = []
    for number, trak in enumerate(traks):
        if number != shown and kind_of(trak) != "audio":
            continue
        try:
            track = _track(read, size, number, trak, movie_timescale or 1, fragments, far)
        except IndexRefused as error:
            refused.append((number, error.code, error.detail))
        else:
            if number == shown:
                video = track
            else:
                audio.append(track)
    kept = [*([video] if video is not None else []), *audio]
    if not kept:
        _, code, detail = refused[0] if refused else (0, "codec", "The file has no track that can be served as it is.")
        raise IndexRefused(code, detail)
    origin = min(track.start for track in kept)
    kept = [track.moved(round(origin * track.about.timescale)) for track in kept]
    return _cut(read, size, kept, tuple(refused), origin, target)


def _cut(
    read: Read,
    size: int,
    kept: Sequence[_Track],
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
                made, rows, ranges = _segments(
                    replace(track, samples=replace(track.samples, keys=keys)), starts, target
                )
            else:
                made, rows, ranges = _segments(track, _audio_cuts(track, cuts, target), target)
        except IndexRefused as error:
            no.append((track.number, error.code, error.detail))
            continue
        finished.append(made)
        written.append((track.number, rows, ranges))
    if not finished:
        raise IndexRefused(*no[-1][1:])
    return SourceIndex(
        video=next((track for track in finished if track.kind == "video"), None),
        audio=tuple(track for track in finished if track.kind == "audio"),
        refused=tuple(no),
        origin=origin,
        blob=stored(size, written),
    )


def _track(
    read: Read,
    size: int,
    number: int,
    trak: memoryview,
    movie_timescale: int,
    fragments: Fragments | None,
    far: bool,
) -> _Track:
    about = describe(trak, movie_timescale)
    tables = needed(trak, b"mdia", b"minf", b"stbl")
    if fragments is None:
        samples = read_samples(tables, size, about.timescale)
    else:
        samples = fragments.samples(track_id(trak), tables, about.timescale)
    edit = about.edit
    if edit.length is not None:
        inside = np.flatnonzero(samples.shown < edit.begin + edit.length)
        if not len(inside):
            raise IndexRefused("multi_edit", "The track's edit shows none of it.")
        samples = samples.part(0, int(inside[-1]) + 1)
    delay = round(Fraction(*edit.delay) * about.timescale)
    if about.kind == "video":
        return _video_track(read, number, about, samples, delay, far)
    return _audio_track(number, about, samples, delay)


def _video_track(read: Read, number: int, about: Description, samples: Samples, delay: int, far: bool) -> _Track:
    look = looking(read, samples, about.codec, about.config)
    keys, looked_at = verified(samples, look, far=far)
    found = [int(n) for n in np.flatnonzero(closed(samples, keys))[:_TRIED]]
    first = next((n for n in found if look(n)), None)
    if first is None:
        raise IndexRefused(
            "no_keyframes", "The video has no key frame that it can begin with; every rendition is encoded."
        )
    samples = replace(samples, keys=keys).part(first, len(samples))
    begins = samples.shown - about.edit.begin + delay
    hidden = delay - int(begins[0])
    if hidden > ROUNDING_S * about.timescale:
        raise IndexRefused("edit_preroll", "The video begins between two key frames; every rendition is encoded.")
    if hidden > 0:
        begins = begins + hidden
    decoded = samples.decoded + int(begins[0] - samples.decoded[0])
    return _Track(number, about, samples, begins, decoded, int((decoded - begins).max()), looked_at)


def _audio_track(number: int, about: Description, samples: Samples, delay: int) -> _Track:
    """Frames that end before the edit begins are dropped; what is left of one is hidden by an edit of its own."""
    begins = samples.decoded - about.edit.begin + delay
    heard = np.flatnonzero(begins + samples.durations > delay)
    if not len(heard):
        raise IndexRefused("multi_edit", "The track's edit shows none of it.")
    first = int(heard[0])
    samples, begins = samples.part(first, len(samples)), begins[first:]
    samples = replace(samples, keys=np.ones(len(samples), np.bool_))  # whatever the tables say of sound
    rest = max(0, delay - int(begins[0]))
    return _Track(number, about, samples, begins, begins + rest, rest)


def _video_cuts(read: Read, track: _Track, target: Fraction) -> tuple[list[int], Flags]:
    """The samples that segments begin with, the first closed, verified key frame at or after each multiple of the target; and all
    closed key frames."""
    samples, scale = track.samples, track.about.timescale
    look = None if track.looked_at else looking(read, samples, track.about.codec, track.about.config)
    candidates = np.flatnonzero(closed(replace(samples, shown=track.begins), samples.keys))
    times = track.begins[candidates]
    starts = [0]
    at = 0
    while True:
        due = (int(track.begins[starts[-1]] / (target * scale)) + 1) * target * scale
        at = max(at + 1, int(np.searchsorted(times, float(due))))
        while look is not None and at < len(candidates) and not look(int(candidates[at])):
            at += 1
        if at >= len(candidates):
            break
        starts.append(int(candidates[at]))
    keys = np.zeros(len(samples), np.bool_)
    keys[candidates] = True
    return starts, keys


def _audio_cuts(track: _Track, cuts: Sequence[Fraction], target: Fraction) -> list[int]:
    scale = track.about.timescale
    if not cuts:
        end = int(track.begins[-1]) // scale
        cuts = [n * target for n in range(int(end / target) + 1)]
    ticks = np.array([-(-cut.numerator * scale // cut.denominator) for cut in cuts], np.int64)
    found = np.searchsorted(track.begins, ticks)
    return sorted({0, *(int(n) for n in found if n < len(track.begins))})


def _segments(
    track: _Track, starts: list[int], target: Fraction
) -> tuple[IndexedTrack, list[tuple[bytes, int, int, int]], bytes]:
    about, samples, scale = track.about, track.samples, track.about.timescale
    ends = [*starts[1:], len(samples)]
    finish = int((track.begins + samples.durations).max())
    boundaries = (*(int(track.begins[n]) for n in starts), finish)
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
    ranges, firsts, counts = ranges_of(samples.offsets, samples.sizes, starts)
    rows = []
    offsets = track.begins + track.edit - track.decoded
    for n, (start, end) in enumerate(zip(starts, ends, strict=True)):
        cut = slice(start, end)
        head = array_head(
            n + 1,
            int(track.decoded[start]),
            samples.durations[cut],
            samples.sizes[cut],
            samples.keys[cut],
            offsets[cut],
        )
        rows.append((head, int(firsts[n]), int(counts[n]), int(bodies[n])))
    bits = np.array([len(head) + body for head, _, _, body in rows]) * 8
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
        frame_rate=_frame_rate(samples, scale) if about.kind == "video" else None,
        rotation=about.rotation,
        channels=about.channels,
        sample_rate=about.sample_rate,
        language=about.language,
        default=about.enabled,
        frames=len(samples),
        times=np.sort(track.begins),
    )
    return made, rows, ranges


def _copied(track: _Track) -> cmaf.CopiedTrack:
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
