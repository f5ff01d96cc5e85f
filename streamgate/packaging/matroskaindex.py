"""The sample index of an uploaded Matroska or WebM file: what of it can be served as it is, cut where it allows.

Its clock is coarse (a millisecond, usually). Pictures keep the times that it says, and are decoded in the order of their times;
sound is laid on the grid of its frames, which begins anew where the file's clock has moved away from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamgate.packaging import opus, timing
from streamgate.packaging.cutting import ShownTrack, SourceIndex, audio_track, index_of, video_track
from streamgate.packaging.keyframes import Looking
from streamgate.packaging.matroska import NOT_STATED, Frames, Scan
from streamgate.packaging.matroskascan import taken_up
from streamgate.packaging.matroskatracks import Entry, describe
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.sampleentry import Description
from streamgate.packaging.sampletables import Numbers, Samples

_AAC_FRAME = 1024
_FINEST = 10_000_000
_COARSEST = 1000
_KEY = 0x80


def index_matroska(
    read: Read,
    size: int,
    *,
    segment_s: float = 4.0,
    far: bool = False,
    heard: Mapping[int, Fraction] | None = None,
    saved: bytes = b"",
) -> SourceIndex:
    """As `sampleindex.index_mp4`, of a Matroska or WebM file. ``saved``: where a scan of its beginning stood; it goes on there."""
    try:
        scan = taken_up(read, size, saved, far=far)
        if scan.head(size):
            describe_video(scan)
        scan.advance(size, last=True)
        tracks, refused = shown_tracks(read, scan, far=far)
        index = index_of(read, size, tracks, refused, Fraction(segment_s).limit_denominator(1000), heard)
        return replace(index, ends=_ends(scan), cut_off=scan.cut_off)
    except MemoryError:
        raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.") from None


def picture(scan: Scan) -> Entry | None:
    """The track of pictures that is shown."""
    pictures = [track for track in scan.tracks or () if track.kind == "video"]
    return next((track for track in pictures if track.enabled), pictures[0] if pictures else None)


def describe_video(scan: Scan) -> Description | None:
    """What the pictures are, None when there are none. Raises `IndexRefused` where they cannot be served: then nothing can."""
    entry = picture(scan)
    return describe(entry, ticks(scan)) if entry is not None else None


def ticks(scan: Scan) -> int:
    """Ticks in a second of the pictures: those of the file where they are whole and fine enough, else millionths."""
    exact = 10**9 // scan.scale
    return exact if 10**9 % scan.scale == 0 and _COARSEST <= exact <= _FINEST else 10**6


def shown_tracks(read: Read, scan: Scan, *, far: bool) -> tuple[list[ShownTrack], list[tuple[int, str, str]]]:
    """The tracks that can be served, video first, as far as the file was scanned; and the others as (place, code, sentence)."""
    if scan.tracks is None:
        raise IndexRefused("no_tracks", "The file does not say what is in it; it was probably cut off.")
    film = picture(scan)
    kept: list[ShownTrack] = []
    refused: list[tuple[int, str, str]] = []
    for entry in sorted(scan.tracks, key=lambda entry: entry is not film):
        if entry is not film and entry.kind != "audio":
            continue
        try:
            kept.append(_track(read, scan, entry, far))
        except IndexRefused as error:
            refused.append((entry.place, error.code, error.detail))
    return kept, refused


def _track(read: Read, scan: Scan, entry: Entry, far: bool) -> ShownTrack:
    about = describe(entry, ticks(scan))
    frames = scan.frames[entry.number]
    if not frames.rows:
        raise IndexRefused("table_short", "The track has no samples.")
    if entry.kind == "video":
        samples = _pictures(scan, entry, frames, about)
        about = replace(about, frame_rate=_frame_rate(entry, samples, about.timescale))
        return video_track(entry.place, about, samples, 0, Looking(read, samples, about.codec, about.config), far=far)
    samples, start = _sound(scan, frames, about)
    return audio_track(entry.place, about, samples, start)


def _pictures(scan: Scan, entry: Entry, frames: Frames, about: Description) -> Samples:
    table = frames.table()
    times = table[:, 2]
    if bool((times == NOT_STATED).any()):
        raise IndexRefused("table_mismatch", "Several pictures of the film share one time; every rendition is encoded.")
    shown = _scaled(times, scan.scale, about.timescale)
    if entry.delay:
        shown -= round(entry.delay * about.timescale / 10**9)
    keys = (table[:, 3] & _KEY) != 0
    stated = entry.duration * about.timescale / 10**9 if entry.duration else 0
    return timing.pictures(table[:, 0].copy(), table[:, 1].copy(), shown, keys, stated)


def _ends(scan: Scan) -> dict[int, Fraction]:
    """When the tracks of sound end, in seconds, to about a frame."""
    found = {}
    for entry in scan.tracks or ():
        frames = scan.frames.get(entry.number)
        if entry.kind == "audio" and frames is not None and frames.rows:
            last = max(frames.rows[2::4]) * scan.scale - entry.delay + (entry.duration or 0)
            found[entry.place] = Fraction(last, 10**9)
    return found


def _frame_rate(entry: Entry, samples: Samples, timescale: int) -> tuple[int, int] | None:
    """What the track states, where its times agree; the times alone are too coarse to tell 24 from 23.976."""
    spans = len(samples) - 1
    if entry.duration is None or not spans:
        return None
    counted = Fraction(spans * timescale, int(samples.decoded[-1] - samples.decoded[0]))
    stated = Fraction(10**9, entry.duration).limit_denominator(1001)
    return (stated.numerator, stated.denominator) if abs(counted - stated) <= stated / 100 else None


def _scaled(times: Numbers, scale: int, timescale: int) -> Numbers:
    """Ticks of the file as ticks of a track, to the nearest."""
    if scale * timescale == 10**9:
        return times.copy()
    found: Numbers = np.rint(times * (scale * timescale / 10**9)).astype(np.int64)
    return found


def _sound(scan: Scan, frames: Frames, about: Description) -> tuple[Samples, int]:
    """The samples, decoded from 0 on, and the tick at which they are."""
    table = frames.table()
    if about.codec == "opus":
        durations = opus.durations(table[:, 3] >> 8 & 0xFF, table[:, 3] >> 16 & 0xFF, table[:, 1])
        if not bool(durations.all()):
            raise IndexRefused("table_mismatch", "Some samples of the track last no time; every rendition is encoded.")
    else:
        durations = np.full(len(table), _AAC_FRAME, np.int64)
    stated = table[:, 2] != NOT_STATED
    times = _scaled(np.where(stated, table[:, 2], 0), scan.scale, about.timescale)
    drift, hidden = round(timing.DRIFT_S * about.timescale), round(frames.padding * about.timescale / 10**9)
    return timing.sound(table[:, 0].copy(), table[:, 1].copy(), times, stated, durations, drift, hidden)
