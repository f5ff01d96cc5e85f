"""What of an MP4, MOV, Matroska or WebM is served as it was uploaded: decided per track, from the container's structure alone.

The first place in the playlists is for what every player takes; HEVC and AV1 pass through too, in the last place. What is not
cut and coded as browsers need it goes to the encoders as a whole, with the reason that the asset's ``source`` then states.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from streamgate.media.growingremux import finish
from streamgate.media.ladder import video_rung
from streamgate.media.languages import bcp47
from streamgate.media.model import Grown, LadderSettings, PlannedRendition
from streamgate.media.opening import RangeFile, Source
from streamgate.media.probe import AudioFound, Probe, VideoFound
from streamgate.media.remux import remux
from streamgate.packaging.matroskaindex import index_matroska
from streamgate.packaging.mp4boxes import fetch_movie
from streamgate.packaging.sampleindex import IndexedTrack, IndexRefused, Read, SourceIndex, index_mp4

SOURCE = "source"
"""The name of the rendition that is the uploaded video."""

_INDEXED = ("mp4", "matroska")

TRANSPORT = "mpegts"
"""What a `Probe` calls files that are written out."""

LARGEST_INDEX = 48 << 20
"""Bytes of a stored index: it crosses from the child in one message."""

SWITCHED_OFF = "Every rendition is encoded from the upload."
AS_UPLOADED = "The uploaded video is served as it is; smaller renditions are encoded beside it."
SOUND_ENCODED = "The uploaded video is served as it is; sound that not every player takes is encoded."
WRITTEN_OUT = (
    "What browsers take of the upload is stored once more, in the form they need, and served without encoding."
)
SOUND_ONLY = "The uploaded sound is served as it is."

_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")

_AVC = ("avc1.42", "avc1.4d", "avc1.58", "avc1.64", "avc3.42", "avc3.4d", "avc3.58", "avc3.64")
"""8-bit 4:2:0 profiles: baseline, main, extended, high."""

OPUS = "opus"
"""Sound that some players lack: it stands beside an encoded rendition of the same track."""

_LATER = ("hvc1.1.", "hev1.1.", "av01.0.")
"""8-bit profiles that some players lack: HEVC Main, AV1 Main."""

_FIRST_SHORT, _FIRST_RATE, _FIRST_BANDWIDTH = 1088, 61, 20_000_000
_MODEST = 2
"""Times the peak rate of an encoded rung that the source may need and still stand for the rung of its size."""


@dataclass(frozen=True, slots=True)
class Passing:
    """What passes through. ``video``, ``audio``: indexed tracks, audio by the probe's stream index. ``remuxed``: the lengths of the
    files that the film was written out to, where it had to be: the index is one of those then, behind the ``before`` bytes that
    it had been written out to while it arrived."""

    index: SourceIndex
    video: IndexedTrack | None
    audio: dict[int, IndexedTrack]
    reason: str
    remuxed: tuple[int, ...] = ()
    before: int = 0

    @property
    def heard_everywhere(self) -> frozenset[int]:
        """The audio tracks that need not be encoded beside, by the probe's stream index: some players lack Opus."""
        return frozenset(number for number, track in self.audio.items() if track.codec != OPUS)

    @property
    def origin(self) -> Fraction:
        """The source time (seconds) that is the film's time 0."""
        return self.index.origin


@dataclass(frozen=True, slots=True)
class Room:
    """Where a film may be written out that is no byte ranges of its file, and how many seconds that may take. ``before``: what the
    last look came to while it arrived, if it was written out or scanned then."""

    folder: Path
    within_s: float
    before: Grown | None = None


Ahead = Callable[[], SourceIndex]
"""Gives an index that is being read; raises `IndexRefused`."""


def index_ahead(source: Source, ladder: LadderSettings) -> Ahead | None:
    """Begin to read the index of what looks like an MP4, while libav looks at the film; None for anything else.

    It is sent to the server as soon as it is made (`wire.Indexed`), unless it is too large. Of a source that is far away the boxes
    that it is made of are fetched first, and libav then finds them here.
    """
    if not _looks_like_mp4(source):
        return None
    future: Future[SourceIndex] = Future()

    def work() -> None:
        try:
            index = _index(source, ladder, "mp4")
            if len(index.blob) <= LARGEST_INDEX:
                source.tell_index(index.blob)
            future.set_result(index)
        except BaseException as error:  # noqa: BLE001  raised where the index is asked for
            future.set_exception(error)

    if source.far:
        with suppress(IndexRefused), _reader(source) as read:
            fetch_movie(read, source.size)
    threading.Thread(target=work, name="index", daemon=True).start()
    return future.result


def _index(
    source: Source,
    ladder: LadderSettings,
    container: str,
    heard: Mapping[int, Fraction] | None = None,
    scanned: bytes = b"",
) -> SourceIndex:
    segment_s, far = ladder.segment_s, source.far
    with _reader(source, keep=container == "mp4") as read:
        if container == "mp4":
            return index_mp4(read, source.size, segment_s=segment_s, far=far, heard=heard)
        return index_matroska(read, source.size, segment_s=segment_s, far=far, heard=heard, saved=scanned)


def _indexed(
    source: Source, found: Probe, ladder: LadderSettings, room: Room | None, ahead: Ahead | None
) -> SourceIndex:
    """The index, from the earliest of all tracks on. One that was read ahead knows the beginning of those alone that it has."""
    heard = found.heard()
    if ahead is None or found.container != "mp4":
        scanned = room.before.state if room is not None and room.before is not None else b""
        return _index(source, ladder, found.container, heard, scanned)
    index = ahead()
    others = heard.keys() - {track.number for track in index.audio}
    if any(heard[number] < index.origin for number in others):
        return _index(source, ladder, found.container, heard)
    return index


def _looks_like_mp4(source: Source) -> bool:
    with _reader(source) as read:
        return read(0, 8)[4:] in _FIRST_BOXES


def passing(
    source: Source, found: Probe, ladder: LadderSettings, room: Room | None = None, ahead: Ahead | None = None
) -> Passing | str:
    """What of the film passes through, or the sentence that says why nothing does. ``ahead``: `index_ahead`."""
    if not ladder.passthrough:
        return SWITCHED_OFF
    if found.container == TRANSPORT and room is not None:
        return _written_out(source, found, ladder, room)
    if found.container not in _INDEXED:
        return "Files of this kind are not served as they are; every rendition is encoded from the upload."
    try:
        index = _indexed(source, found, ladder, room, ahead)
    except IndexRefused as refused:
        return refused.detail
    return chosen(index, found)


def _written_out(source: Source, found: Probe, ladder: LadderSettings, room: Room) -> Passing | str:
    made = None
    if room.before is not None and room.before.size:
        until = time.monotonic() + room.within_s
        with _reader(source, keep=False) as read:
            made = finish(source, read, found, room.before, room.folder, until, ladder.segment_s)
    try:
        made = made or remux(source, found, folder=room.folder, within_s=room.within_s, segment_s=ladder.segment_s)
    except IndexRefused as refused:
        return refused.detail
    passed = chosen(made.index, found)
    if isinstance(passed, str):
        return passed
    return replace(passed, reason=WRITTEN_OUT, remuxed=made.lengths, before=made.before)


def chosen(index: SourceIndex, found: Probe) -> Passing | str:
    """What of an index is served, or the sentence that says why nothing is."""
    if len(index.blob) > LARGEST_INDEX:
        return "The film has too many samples to be served as it is."
    wanted = {track.index for track in found.audio}
    audio = {track.number: track for track in index.audio if track.number in wanted}
    if found.video is None:
        return Passing(index, None, audio, SOUND_ONLY) if audio else _why(index, None)
    why_not = _why_encoded(index, found.video)
    if why_not is not None:
        return why_not
    plain = len(audio) == len(wanted) and all(track.codec != OPUS for track in audio.values())
    return Passing(index, index.video, audio, AS_UPLOADED if plain else SOUND_ENCODED)


def _why_encoded(index: SourceIndex, found: VideoFound) -> str | None:
    track = index.video
    if track is None or track.number != found.index:
        return _why(index, found.index)
    codec = track.codec.lower()
    if not codec.startswith((*_AVC, *_LATER)) or (codec.startswith("av01") and not codec.endswith(".08")):
        return "The video is of a kind that browsers do not play (only 8-bit 4:2:0 passes through)."
    if found.interlaced:
        return "The video is interlaced."
    return None


def _why(index: SourceIndex, number: int | None) -> str:
    for track, _, detail in index.refused:
        if number is None or track == number:
            return detail
    return "The file has no track that can be served as it is."


@contextmanager
def _reader(source: Source, *, keep: bool = True) -> Iterator[Read]:
    """``keep``: long ranges stay here for whoever opens the source next."""
    with source.raw() as raw:
        if isinstance(raw, RangeFile):
            yield _Far(raw, source.size, keep=keep)
        else:
            descriptor = raw.fileno()
            yield lambda offset, length: os.pread(descriptor, max(0, length), offset) if offset >= 0 else b""


class _Far:
    """A `ReadMany` of a source that is read by ranges."""

    def __init__(self, raw: RangeFile, size: int, *, keep: bool) -> None:
        self._raw = raw
        self._size = size
        self._keep = keep

    def __call__(self, offset: int, length: int, /) -> bytes:
        length = min(length, self._size - offset)
        return self._raw.range(offset, length, keep=self._keep) if offset >= 0 and length > 0 else b""

    def many(self, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        return self._raw.many(ranges)


def stands_first(track: IndexedTrack, found: VideoFound) -> bool:
    """Whether every player takes it, so that a film may begin with it."""
    rate = Fraction(*track.frame_rate) if track.frame_rate else Fraction(0)
    return (
        track.codec.lower().startswith(_AVC)
        and min(found.width, found.height) <= _FIRST_SHORT
        and rate < _FIRST_RATE
        and track.bandwidth <= _FIRST_BANDWIDTH
    )


def replaces(track: IndexedTrack, found: VideoFound, size: tuple[int, int], ladder: LadderSettings) -> bool:
    """Whether the source stands for an encoded rung: as large as it, of no more than twice its peak rate, and for every player."""
    rate = Fraction(*track.frame_rate) if track.frame_rate else Fraction(25)
    return (
        stands_first(track, found)
        and min(size) >= min(found.width, found.height) // 2 * 2
        and track.average_bandwidth <= _MODEST * video_rung(*size, rate, ladder).maxrate
    )


def video_rendition(track: IndexedTrack, found: VideoFound) -> PlannedRendition:
    """The uploaded video as a rendition. A first picture that begins late is announced from time 0 on, as on encoded rungs."""
    return PlannedRendition(
        name=SOURCE,
        kind="video",
        codecs=track.codec,
        timescale=track.timescale,
        boundaries=(0, *track.boundaries[1:]),
        bandwidth=track.bandwidth,
        config=b"",
        init=track.init,
        rung=None,
        passthrough=track.number,
        width=found.width,
        height=found.height,
        frame_rate=track.frame_rate,
    )


def audio_rendition(track: IndexedTrack, found: AudioFound, number: int, *, default: bool) -> PlannedRendition:
    """An uploaded audio track as a rendition; ``number`` counts from 1."""
    return PlannedRendition(
        name=f"audio-{number}-{OPUS}" if track.codec == OPUS else f"audio-{number}",
        kind="audio",
        codecs=track.codec,
        timescale=track.timescale,
        boundaries=(0, *track.boundaries[1:]),
        bandwidth=track.bandwidth,
        config=b"",
        init=track.init,
        rung=None,
        passthrough=track.number,
        channels=track.channels,
        sample_rate=track.sample_rate,
        language=bcp47(found.language),
        label=found.title,
        default=default,
        track=number,
    )
