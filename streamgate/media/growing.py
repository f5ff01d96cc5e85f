"""A film that is still being uploaded: what of it can be played already, from its index and the bytes that have arrived.

What is listed once stays as it is: a segment counts when all of it has arrived and the key frame that ends it has been looked at,
and from there on every look, also the one at the whole file, cuts the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from streamgate.domain.asset import FailureCode
from streamgate.media import growingremux
from streamgate.media.growingremux import Copied
from streamgate.media.model import Grown, MediaPlan, PlannedRendition
from streamgate.media.opening import Source, refused
from streamgate.media.passing import (
    TRANSPORT,
    WRITTEN_OUT,
    Passing,
    audio_rendition,
    chosen,
    stands_first,
    video_rendition,
)
from streamgate.media.plan import default_audio
from streamgate.media.probe import Probe, probe
from streamgate.media.wire import GrowTask
from streamgate.packaging import growingmatroska
from streamgate.packaging.arriving import Arriving, fragments_follow, wanted_for_index
from streamgate.packaging.sampleindex import IndexedTrack, IndexRefused, SourceIndex, index_mp4

SOUND_LATER = "The uploaded video plays while it arrives; sound that has to be encoded follows when the film is there."
NOT_EVERYWHERE = (
    "The uploaded video plays while it arrives, where the player takes it; renditions for all follow when it is there."
)

TOO_RARE = "The film needs too many bytes between two key frames to play before it is whole."

_NOTHING_YET = "table_short"
"""The code of a track that has no samples (yet)."""

_STEP = 256 << 10
"""Bytes after which another look is worth it where the index goes on."""


@dataclass(frozen=True, slots=True)
class _SoFar:
    """What is known of a source: its index, if there is one, whether that goes on as more arrives, and how far the source must have
    come before there is more; ``state`` as in `Grown`. ``copied``: where it is written out, and the index is of that."""

    index: SourceIndex | None
    more: bool
    wanted: int
    state: bytes = b""
    copied: Copied | None = None

    @property
    def tracks(self) -> list[IndexedTrack]:
        """What can be served, pictures first."""
        index = self.index
        return [] if index is None else [*([index.video] if index.video is not None else []), *index.audio]

    def count(self, there: int) -> int:
        """How many segments of each track are there."""
        return _complete(self.tracks, there) if self.more else _listed(self.tracks, there)


def look(source: Source, task: GrowTask, folder: Path) -> Grown:
    """Look at what has arrived; ``folder``: where it may be written out. Raises `MediaRefused` for a film that is longer than films
    may be."""
    before = task.before
    told: Probe | None = None
    with source.ranges() as raw:
        read = Arriving(raw.range, source.size, task.extents, before.looked_at, before.lies)
        try:
            found = _so_far(source, read, task, folder)
            if found.copied is None and found.index is not None and found.index.refused and found.count(read.arrived):
                # Sound that is not served as it is may begin first, and with it the film.
                told = probe(source, task.limits)
                found = _so_far(source, read, task, folder, told)
        except IndexRefused as why:
            return Grown(reason=why.detail)
    index, more, copied = found.index, found.more, found.copied
    if index is None:
        return _as_before(before, read, copied) if copied else Grown(wanted=found.wanted, state=found.state)
    count = found.count(copied.size if copied is not None else read.arrived)
    if copied is not None and count <= before.count:
        return _as_before(before, read, copied)
    # An index that goes on is another one each time: it is worth storing when it tells of a segment more.
    same = more and count == before.count
    mark = before.mark if same else hashlib.sha256(index.blob).digest() if count else b""
    plan: MediaPlan | str | None = None
    if mark != before.mark:
        told = copied.found if copied is not None else told
        plan = _plan(index, told or probe(source, task.limits), task)
    if isinstance(plan, str):
        return Grown(reason=plan)
    return Grown(
        plan=plan,
        count=count,
        wanted=found.wanted if more else _after(found.tracks, count),
        looked_at=copied.at if copied is not None else read.arrived,
        lies=read.lies,
        mark=mark,
        state=found.state,
        size=copied.size if copied is not None else 0,
        written=copied.lengths if copied is not None else (),
    )


def _as_before(before: Grown, read: Arriving, copied: Copied) -> Grown:
    """Nothing more is listed, so nothing that was written out counts: the next look goes on from where this one did."""
    if copied.most:
        return Grown(reason=TOO_RARE)
    return replace(before, plan=None, wanted=copied.wanted, looked_at=read.arrived, written=())


def _so_far(source: Source, read: Arriving, task: GrowTask, folder: Path, told: Probe | None = None) -> _SoFar:
    heard = told.heard() if told is not None else {}
    if growingremux.goes_on(read):
        copied = growingremux.copy_on(source, read, task, folder)
        return _SoFar(copied.index, more=True, wanted=copied.wanted, state=copied.state, copied=copied)
    if read(0, 4) == growingmatroska.MAGIC:
        return _matroska(read, task, heard)
    return _mp4(read, task, heard)


def _mp4(read: Arriving, task: GrowTask, heard: Mapping[int, Fraction]) -> _SoFar:
    wanted = wanted_for_index(read)
    if wanted:
        return _SoFar(None, more=True, wanted=wanted)
    more = fragments_follow(read)
    after = read.arrived + _STEP
    try:
        index = index_mp4(read, read.size, segment_s=task.ladder.segment_s, heard=heard)
    except IndexRefused as why:
        if more and why.code == _NOTHING_YET:
            return _SoFar(None, more=True, wanted=after)
        raise
    if more and any(code == _NOTHING_YET for _, code, _ in index.refused):
        return _SoFar(None, more=True, wanted=after)
    return _SoFar(index, more, after)


def _matroska(read: Arriving, task: GrowTask, heard: Mapping[int, Fraction]) -> _SoFar:
    index, state = growingmatroska.index_so_far(read, task.before.state, task.ladder.segment_s, heard)
    return _SoFar(index, more=True, wanted=read.arrived + _STEP, state=state)


def _listed(tracks: list[IndexedTrack], arrived: int) -> int:
    """How many segments are there of every track that has so many."""
    there = [int(np.searchsorted(track.needed, arrived, side="right")) for track in tracks]
    open_ones = [n for n, track in zip(there, tracks, strict=True) if n < len(track.needed)]
    return min(open_ones) if open_ones else max(there)


def _complete(tracks: list[IndexedTrack], arrived: int) -> int:
    """The same where more of every track may follow: what its last two segments are depends on what does."""
    there = [int(np.searchsorted(track.needed, arrived, side="right")) for track in tracks]
    return max(0, min(min(n, len(track.needed) - 2) for n, track in zip(there, tracks, strict=True)))


def _after(tracks: list[IndexedTrack], count: int) -> int | None:
    """The end of the bytes with which one segment more is there; None when all are."""
    more = [int(track.needed[count]) for track in tracks if count < len(track.needed)]
    return max(more) if more else None


def _plan(index: SourceIndex, found: Probe, task: GrowTask) -> MediaPlan | str:
    """The plan of what passes through, or why the film has to be whole before it plays."""
    passed = chosen(index, found)
    if isinstance(passed, str):
        return passed
    renditions = _renditions(found, passed)
    whole = max(rendition.boundaries[-1] / rendition.timescale for rendition in renditions)
    if whole > task.limits.max_duration_s:
        hours = task.limits.max_duration_s / 3600
        raise refused(FailureCode.TOO_LONG, f"The film is longer than {hours:g} hours.")
    return MediaPlan(
        tracks=found.tracks,
        container=found.container,
        duration=whole,
        width=found.video.width if found.video is not None else None,
        height=found.video.height if found.video is not None else None,
        renditions=renditions,
        chunks=(),
        recipe=b"",
        warnings=found.warnings,
        reason=_reason(found, passed),
        index=index.blob,
    )


def _reason(found: Probe, passed: Passing) -> str:
    """What is to be known of a film that plays while it arrives."""
    if passed.video is not None and found.video is not None and not stands_first(passed.video, found.video):
        return NOT_EVERYWHERE
    if any(track.index not in passed.audio for track in found.audio):
        return SOUND_LATER
    return WRITTEN_OUT if found.container == TRANSPORT else passed.reason


def _renditions(found: Probe, passed: Passing) -> tuple[PlannedRendition, ...]:
    """Those of what passes, as the plan of the whole film names them."""
    made = []
    if passed.video is not None and found.video is not None:
        made.append(video_rendition(passed.video, found.video))
    for number, track in enumerate(found.audio, start=1):
        if track.index not in passed.audio:
            continue
        default = track.index == default_audio(found.audio)
        made.append(audio_rendition(passed.audio[track.index], track, number, default=default))
    return tuple(made)
