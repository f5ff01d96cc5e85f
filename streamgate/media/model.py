"""The values that pass between the transcoder and its media children. Imports no media library.

Everything crosses as msgpack; a child's answer is checked against these types before anything is believed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streamgate.contracts.metadata import Track
from streamgate.contracts.transcoder import Storyboard
from streamgate.contracts.upload import SourcePart
from streamgate.domain.asset import MediaWarning


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a file may be. Beyond it: `MediaRefused` with too_long, too_large or too_many_pixels."""

    max_duration_s: float = 12 * 3600
    max_pixels: int = 8192 * 4352
    max_streams: int = 64
    max_size: int = 1 << 42


class LadderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How encoded renditions are made. ``rungs`` are short sides in pixels; the ladder never upscales.

    ``crf``: x264's quality (lower is better); ``rate_factor`` multiplies the peak rate of every rung. ``passthrough``:
    whether what players take as it is, is served so.
    """

    rungs: tuple[int, ...] = (360, 480, 720, 1080, 1440, 2160)
    preset: str = "veryfast"
    segment_s: float = 4.0
    audio_bitrate: int = 128_000
    max_frame_rate: int = 60
    crf: float = 23.0
    rate_factor: float = 1.0
    passthrough: bool = False


class VideoRung(msgspec.Struct, frozen=True, kw_only=True, tag="video"):
    """Everything that makes the video encoder of one rung reproducible: two chunks made from it fit each other."""

    width: int
    height: int
    frame_rate: tuple[int, int]
    crf: float
    maxrate: int
    bufsize: int
    preset: str
    profile: str
    level: str
    gop: int
    threads: int


class AudioRung(msgspec.Struct, frozen=True, kw_only=True, tag="audio"):
    """The audio encoder of one rendition: AAC-LC on one global grid of 1024 samples."""

    sample_rate: int
    channels: int
    bitrate: int
    stream_index: int


class PlannedRendition(msgspec.Struct, frozen=True, kw_only=True):
    """A rendition of the plan; `contracts.transcoder.RenditionPlan` is this with the init segment stored.

    ``boundaries``: see `RenditionPlan`. ``config``: the decoder configuration record (avcC) or AudioSpecificConfig that
    every chunk must come out with, byte for byte. ``init``: the init segment. ``track``: renditions of the same kind and
    track are one thing at several rates. ``passthrough``: the track of the source that is served as it is; nothing is
    encoded then, and there is no ``rung``.
    """

    name: str
    kind: Literal["video", "audio"]
    codecs: str
    timescale: int
    boundaries: tuple[int, ...]
    bandwidth: int
    config: bytes
    init: bytes
    rung: VideoRung | AudioRung | None
    width: int | None = None
    height: int | None = None
    frame_rate: tuple[int, int] | None = None
    channels: int | None = None
    sample_rate: int | None = None
    language: str | None = None
    label: str | None = None
    default: bool = False
    track: int = 0
    passthrough: int | None = None


def remuxed_file(number: int) -> str:
    """What a file with a part of a source that was written out is called; ``number`` from 0."""
    return f"remuxed.{number}"


class CaptionTrack(msgspec.Struct, frozen=True, kw_only=True):
    """One text subtitle track. ``name``: a file name of its own; ``language``: BCP 47; ``vtt``: the whole as WebVTT."""

    name: str
    language: str | None = None
    label: str | None = None
    default: bool = False
    forced: bool = False
    vtt: bytes = b""


class MediaPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What planning a source gives: what is in it, its timeline, its renditions (video lowest first, then audio).

    ``recipe`` is whatever else the encoder needs of the source (stream indexes, start time, rotation, colour, frame
    times); opaque outside media/. ``chunks``: the segments of each chunk as (first, end); a rendition takes part in
    those numbers that it has. A chunk is what is made, kept and asked for as one; ``runs``, as (first, end), are the chunks that
    are encoded at a stretch when nobody waits for one of them (none: each by itself). ``reason``: why the source is served as it
    is, or is not. ``index``: the sample index of the source, where it has one, for `packaging.segments.StoredIndex`; stored apart
    from the plan, as ``parts`` (the source's objects, in order) are filled in by the server. ``remuxed``: where the source had
    to be written out for that, the lengths of the files (`remuxed_file`) that it was written to, which then are the parts;
    ``remuxed_before``: bytes that it had been written out to while it arrived, which are parts before those. ``begun``,
    filled in by the server: what passes through played already while the film arrived, and goes on to.
    """

    tracks: tuple[Track, ...]
    container: str
    duration: float
    width: int | None
    height: int | None
    renditions: tuple[PlannedRendition, ...]
    chunks: tuple[tuple[int, int], ...]
    recipe: bytes
    runs: tuple[tuple[int, int], ...] = ()
    warnings: tuple[MediaWarning, ...] = ()
    captions: tuple[CaptionTrack, ...] = ()
    storyboard: Storyboard | None = None
    reason: str = "Every rendition is encoded from the upload."
    index: bytes = b""
    remuxed: tuple[int, ...] = ()
    remuxed_before: int = 0
    parts: tuple[SourcePart, ...] = ()
    begun: bool = False

    @property
    def encoded(self) -> tuple[PlannedRendition, ...]:
        """The renditions that chunk jobs make."""
        return tuple(rendition for rendition in self.renditions if rendition.passthrough is None)

    @property
    def opening(self) -> str | None:
        """The rendition with whose first chunk the film plays; None when it plays at once."""
        if self.renditions[0].passthrough is None:
            return self.renditions[0].name
        return next((r.name for r in self.renditions if r.kind == "audio" and r.passthrough is None), None)


class EncodedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """One segment that a child wrote: a file in the scratch folder it was given, and its length in bytes."""

    rendition: str
    number: int
    file: str
    length: int


class EncodedChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of encoding a chunk. ``damaged``: decode errors met (the segments are complete all the same)."""

    segments: tuple[EncodedSegment, ...]
    damaged: int = 0
    warnings: tuple[MediaWarning, ...] = ()


class Grown(msgspec.Struct, frozen=True, kw_only=True):
    """What can be played of a source that still arrives.

    ``plan``: its renditions, all of them served as uploaded, with the boundaries of all that the index tells of; None when nothing
    plays yet, or when the index is as it was (``mark`` tells). ``count``: how many segments of each rendition are there; one
    that has fewer is there as a whole. ``wanted``: the end of the bytes that must have arrived before another look finds more; None
    when it will find no more before the last byte, because of ``reason`` if it is not that all is there. ``looked_at`` and
    ``lies``: what the next look need not look at again; ``state``: where a scan stands that goes on from there.

    ``size``: bytes that the source has been written out to by now, where it had to be; the index is of those. ``written``: the
    lengths of the files (`remuxed_file`) that this look wrote.
    """

    plan: MediaPlan | None = None
    count: int = 0
    wanted: int | None = None
    looked_at: int = 0
    lies: tuple[int, ...] = ()
    mark: bytes = b""
    state: bytes = b""
    reason: str = ""
    size: int = 0
    written: tuple[int, ...] = ()
