"""The sample index of an uploaded MP4 or MOV: what of it can be served as it is, cut where it allows, without reading its media.

Times are those of ISO/IEC 14496-12 with the edit applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np

from streamgate.packaging.arriving import Arriving
from streamgate.packaging.cutting import IndexedTrack, ShownTrack, SourceIndex, audio_track, index_of, video_track
from streamgate.packaging.fragments import Fragments, track_id
from streamgate.packaging.keyframes import Looking, few_of
from streamgate.packaging.mp4boxes import IndexRefused, Read, boxes, movie, needed, unpack, version
from streamgate.packaging.sampleentry import describe, enabled, kind_of
from streamgate.packaging.sampletables import read_samples

__all__ = ["IndexRefused", "IndexedTrack", "Read", "SourceIndex", "index_mp4"]


def index_mp4(
    read: Read, size: int, *, segment_s: float = 4.0, far: bool = False, heard: Mapping[int, Fraction] | None = None
) -> SourceIndex:
    """Index a file of ``size`` bytes. ``segment_s``: target length of a segment in seconds. ``far``: each read is a round trip.
    ``heard``: as in `cutting.index_of`.

    Reads the boxes' headers, the movie box, and the first bytes of key frames. Raises `IndexRefused` when no track can be served as
    it is; what cannot beside one that can is among ``refused``.
    """
    try:
        return _indexed(read, size, Fraction(segment_s).limit_denominator(1000), far, heard)
    except MemoryError:
        raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.") from None


def _indexed(read: Read, size: int, target: Fraction, far: bool, heard: Mapping[int, Fraction] | None) -> SourceIndex:
    whole = movie(read, size)
    if isinstance(read, Arriving):
        whole = replace(whole, fragments=tuple(place for place in whole.fragments if read.has(*place)))
    content = whole.content
    header = needed(content, b"mvhd")
    (movie_timescale,) = unpack(">I", header, 20 if version(header) == 1 else 12)
    traks = [box.content for box in boxes(content) if box.kind == b"trak"]
    pictures = [n for n, trak in enumerate(traks) if kind_of(trak) == "video"]
    shown = next((n for n in pictures if enabled(traks[n])), pictures[0] if pictures else None)
    fragments = Fragments(read, size, whole) if whole.fragments else None
    refused: list[tuple[int, str, str]] = []
    begun: list[tuple[int, Callable[[], ShownTrack]]] = []
    for number, trak in enumerate(traks):
        if number != shown and kind_of(trak) != "audio":
            continue
        try:
            begun.append((number, _begun(read, size, number, trak, movie_timescale or 1, fragments, far)))
        except IndexRefused as error:
            refused.append((number, error.code, error.detail))
    kept: list[ShownTrack] = []
    for number, track in sorted(begun, key=lambda one: one[0] == shown):  # first what waits for nothing
        try:
            kept.append(track())
        except IndexRefused as error:
            refused.append((number, error.code, error.detail))
    kept.sort(key=lambda track: track.number != shown)
    return index_of(read, size, kept, sorted(refused), target, heard)


def _begun(
    read: Read,
    size: int,
    number: int,
    trak: memoryview,
    movie_timescale: int,
    fragments: Fragments | None,
    far: bool,
) -> Callable[[], ShownTrack]:
    """A track whose tables are read; the rest of it is there when it is called for. Where reads are far, the first bytes of its key
    frames are fetched meanwhile."""
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
    if about.kind != "video":
        return partial(audio_track, number, about, samples, delay)
    look = Looking(read, samples, about.codec, about.config)
    if far:
        look.begin(few_of(samples))
    return partial(video_track, number, about, samples, delay, look, far=far)
