"""What is in a file: its tracks, which of them can be played, and the shape of their first pictures and samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from math import atan2, degrees
from typing import Any, Literal

import av.error
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamgate.contracts.metadata import Track
from streamgate.domain.asset import FailureCode, MediaWarning
from streamgate.media.captions import TEXT_CODECS
from streamgate.media.languages import bcp47
from streamgate.media.model import Limits
from streamgate.media.opening import Source, refused

MAX_AUDIO_TRACKS = 8
_PACKETS_TRIED = 600
_PROTECTED = ("encv", "enca", "drmi", "drms")
_INTERNAL_PICTURE = (16, 18)
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_HIGH_DEFINITION = 720
_CONTAINERS = {"mov": "mp4", "matroska": "matroska"}


@dataclass(frozen=True, slots=True)
class VideoFound:
    """The video track to play and its first picture. ``width`` and ``height``: upright, in square pixels."""

    index: int
    width: int
    height: int
    turn: int
    mirror: bool
    interlaced: bool
    matrix: str
    wide: bool
    average_rate: Fraction | None


@dataclass(frozen=True, slots=True)
class AudioFound:
    """An audio track to play. ``first``: the source time (seconds) of its first sample that is to be heard."""

    index: int
    rate: int
    channels: int
    first: Fraction
    language: str | None
    title: str | None
    default: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """The outcome: something is playable."""

    container: str
    tracks: tuple[Track, ...]
    video: VideoFound | None
    audio: tuple[AudioFound, ...]
    warnings: tuple[MediaWarning, ...]

    def heard(self) -> dict[int, Fraction]:
        """When the tracks of sound are first heard (source seconds), by index."""
        return {track.index: track.first for track in self.audio}


def probe(source: Source, limits: Limits) -> Probe:
    """Look into a file. Raises `MediaRefused` when nothing in it can be played."""
    with source.open(limits.max_pixels) as container:
        if len(container.streams) > limits.max_streams:
            raise refused(FailureCode.UNSUPPORTED_CONTAINER, f"The file has more than {limits.max_streams} tracks.")
        films = [
            s for s in container.streams if isinstance(s, VideoStream) and not s.disposition & Disposition.attached_pic
        ]
        sounds = [s for s in container.streams if isinstance(s, AudioStream)]
        if not films and not sounds:
            raise refused(FailureCode.NO_MEDIA_STREAMS)
        _check_pixels(films, limits)
        first = _first_frames(container, [s for s in (*films, *sounds) if _decodable(s)])
        pictures = {index: frame for index, frame in first.items() if isinstance(frame, VideoFrame)}
        heard = {index: frame for index, frame in first.items() if isinstance(frame, AudioFrame)}
        if not pictures and not heard:
            raise _nothing(films, sounds)
        film = next((s for s in films if s.index in pictures), None)
        kept = [s for s in sounds if s.index in heard][:MAX_AUDIO_TRACKS]
        video = _video_found(film, pictures[film.index]) if film is not None else None
        return Probe(
            container=_CONTAINERS.get(container.format.name.split(",")[0], container.format.name.split(",")[0]),
            tracks=tuple(_track(stream, video) for stream in container.streams),
            video=video,
            audio=tuple(_audio_found(stream, heard[stream.index]) for stream in kept),
            warnings=tuple(_warnings(container, film, kept)),
        )


def _check_pixels(films: list[VideoStream], limits: Limits) -> None:
    for stream in films:
        if stream.codec_context is not None and stream.width * stream.height > limits.max_pixels:
            raise refused(
                FailureCode.TOO_MANY_PIXELS,
                f"The picture has {stream.width} x {stream.height} pixels, more than may be decoded. Make it smaller.",
            )


def _decodable(stream: Stream) -> bool:
    return stream.codec_context is not None and not _protected(stream)


def _protected(stream: Stream) -> bool:
    try:
        return stream.codec_context is not None and stream.codec_context.codec_tag in _PROTECTED
    except UnicodeDecodeError:
        return False  # MPEG-TS has numbers for tags, which are no text


def _first_frames(container: InputContainer, streams: list[Stream]) -> dict[int, VideoFrame | AudioFrame]:
    """The first frame of every track that yields one soon."""
    found: dict[int, VideoFrame | AudioFrame] = {}
    tries = {stream.index: _PACKETS_TRIED for stream in streams}
    for stream in streams:
        stream.codec_context.thread_count = 1
    try:
        for packet in container.demux(*streams) if streams else ():
            index = packet.stream_index
            if index in tries:
                tries[index] -= 1
                frame = _decoded(packet)
                if frame is not None:
                    found[index] = frame
                if frame is not None or not tries[index]:
                    del tries[index]
            if not tries:
                break
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return found
    return found


def _decoded(packet: Packet[Stream]) -> VideoFrame | AudioFrame | None:
    try:
        frames = packet.decode()
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return None
    return next((frame for frame in frames if isinstance(frame, (VideoFrame, AudioFrame))), None)


def _nothing(films: list[VideoStream], sounds: list[AudioStream]) -> Exception:
    streams: list[Stream] = [*films, *sounds]
    if any(_protected(stream) for stream in streams):
        return refused(FailureCode.ENCRYPTED_MEDIA)
    if any(stream.codec_context is None for stream in streams):
        return refused(FailureCode.UNSUPPORTED_CODEC)
    return refused(FailureCode.MALFORMED_MEDIA)


def _video_found(stream: VideoStream, frame: VideoFrame) -> VideoFound:
    turn, mirror = orientation(frame)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = frame.width, frame.height
    if aspect > 0:
        width = max(1, round(width * aspect))
    if turn in (90, 270):
        width, height = height, width
    wide = int(frame.color_trc) in _INTERNAL_PICTURE
    high = min(frame.width, frame.height) >= _HIGH_DEFINITION
    fallback = "bt2020" if wide else "bt709" if high else "smpte170m"
    return VideoFound(
        index=stream.index,
        width=width,
        height=height,
        turn=turn,
        mirror=mirror,
        interlaced=bool(frame.interlaced_frame),
        matrix=_MATRICES.get(int(frame.colorspace), fallback),
        wide=wide,
        average_rate=stream.average_rate,
    )


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(degrees to turn clockwise, whether to flip left-right afterwards) so that the picture stands as its display matrix says."""
    attached: Any = frame.side_data
    data = attached.get(Type.DISPLAYMATRIX)
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    mirror = a * d - b * c < 0
    return round(degrees(atan2(b, -a if mirror else a)) / 90) * 90 % 360, mirror


def _audio_found(stream: AudioStream, frame: AudioFrame) -> AudioFound:
    base = frame.time_base or stream.time_base or Fraction(1, frame.sample_rate)
    language = stream.language if stream.language not in (None, "", "und") else None
    return AudioFound(
        index=stream.index,
        rate=frame.sample_rate,
        channels=frame.layout.nb_channels,
        first=(frame.pts or 0) * base,
        language=language,
        title=stream.metadata.get("title") or None,
        default=bool(stream.disposition & Disposition.default),
    )


def _warnings(container: InputContainer, film: VideoStream | None, kept: list[AudioStream]) -> list[MediaWarning]:
    warnings: list[MediaWarning] = []
    used = {stream.index for stream in (film, *kept) if stream is not None}
    for stream in container.streams:
        if stream.index in used or stream.type not in ("video", "audio", "subtitle"):
            continue
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.type == "subtitle":
            if stream.codec_context is None or stream.codec_context.name not in TEXT_CODECS:
                detail = f"Track {stream.index} holds subtitles that are pictures; only text is shown."
                warnings.append(MediaWarning("subtitles_left_out", detail))
        elif _protected(stream):
            warnings.append(MediaWarning("track_encrypted", f"Track {stream.index} is encrypted and left out."))
        elif stream.codec_context is None:
            warnings.append(
                MediaWarning("track_unsupported", f"Track {stream.index} is of a kind that cannot be decoded here.")
            )
        else:
            warnings.append(MediaWarning("track_left_out", f"Track {stream.index} ({stream.type}) is left out."))
    return warnings


def _track(stream: Stream, video: VideoFound | None) -> Track:
    kinds: dict[str, Literal["video", "audio", "subtitle"]] = {
        "video": "video",
        "audio": "audio",
        "subtitle": "subtitle",
    }
    context = stream.codec_context
    duration = None
    if stream.duration is not None and stream.duration > 0 and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    shown = context if isinstance(context, VideoCodecContext) else None
    heard = context if isinstance(context, AudioCodecContext) else None
    rate = stream.average_rate if shown is not None else None
    return Track(
        index=stream.index,
        kind=kinds.get(stream.type, "other"),
        codec=context.name if context is not None else "unknown",
        language=bcp47(stream.language),
        duration=duration,
        width=shown.width if shown is not None else None,
        height=shown.height if shown is not None else None,
        frame_rate=float(rate) if rate else None,
        rotation=video.turn if video is not None and video.index == stream.index else 0,
        channels=heard.layout.nb_channels if heard is not None else None,
        sample_rate=heard.sample_rate if heard is not None else None,
    )
