"""HLS playlists of a film, complete before anything of it is encoded (RFC 8216, version 7, fMP4 segments).

Every URI is relative: a rendition's playlist is ``{rendition}/playlist.m3u8``, and beside it lie ``init.mp4`` and its
segments ``{n}.m4s``, n from 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from urllib.parse import quote

from streamgate.contracts.transcoder import Presentation, RenditionPlan

_VERSION = 7
_MICROSECONDS = 1_000_000
_AUDIO_GROUP = "audio"


def master_playlist(presentation: Presentation) -> str:
    """The multivariant playlist: a variant per video rendition in the order of the presentation, audio as one group.

    A film without video has one variant, its default audio. BANDWIDTH is the video's peak plus that of the hungriest
    audio rendition. Raises `ValueError` when the presentation has no rendition at all.
    """
    video = [rendition for rendition in presentation.renditions if rendition.kind == "video"]
    audio = [rendition for rendition in presentation.renditions if rendition.kind == "audio"]
    if not video and not audio:
        raise ValueError("a presentation without renditions has no playlist")
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    grouped = bool(audio) and (bool(video) or len(audio) > 1)
    if grouped:
        lines += _audio_group(audio)
    for rendition in video or [_default(audio)]:
        lines += [_variant(rendition, audio if video else (), grouped=grouped), _playlist_uri(rendition)]
    return "\n".join(lines) + "\n"


def media_playlist(rendition: RenditionPlan, init_name: str = "init.mp4") -> str:
    """The playlist of one rendition: all its segments, for a film that is whole.

    Durations are differences of the boundaries rounded to a microsecond, so that any sum of them is off by less
    than a microsecond.
    """
    edges = [_microseconds(tick, rendition.timescale) for tick in rendition.boundaries]
    durations = [end - start for start, end in itertools.pairwise(edges)]
    target = max((_rounded_seconds(duration) for duration in durations), default=1)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{max(1, target)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{quote(init_name)}"',
    ]
    for number, duration in enumerate(durations):
        whole, rest = divmod(duration, _MICROSECONDS)
        lines += [f"#EXTINF:{whole}.{rest:06d},", f"{number}.m4s"]
    lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _variant(rendition: RenditionPlan, audio: Sequence[RenditionPlan], *, grouped: bool) -> str:
    bandwidth = rendition.bandwidth + max((track.bandwidth for track in audio), default=0)
    codecs = dict.fromkeys((rendition.codecs, *(track.codecs for track in audio)))
    attributes = [f"BANDWIDTH={bandwidth}", f'CODECS="{",".join(codecs)}"']
    if rendition.width and rendition.height:
        attributes.append(f"RESOLUTION={rendition.width}x{rendition.height}")
    if rendition.frame_rate is not None:
        numerator, denominator = rendition.frame_rate
        attributes.append(f"FRAME-RATE={numerator / denominator:.3f}")
    if grouped:
        attributes.append(f'AUDIO="{_AUDIO_GROUP}"')
    if rendition.kind == "video":
        attributes.append("CLOSED-CAPTIONS=NONE")
    return "#EXT-X-STREAM-INF:" + ",".join(attributes)


def _audio_group(audio: Sequence[RenditionPlan]) -> list[str]:
    chosen = _default(audio)
    names: set[str] = set()
    languages: set[str | None] = set()
    lines = []
    for number, rendition in enumerate(audio, start=1):
        name = _quotable(rendition.label or rendition.language or f"Audio {number}")
        if name in names:
            name = f"{name} ({number})"
        names.add(name)
        # Section 4.3.4.1.1: members that may be chosen by themselves differ in language.
        selectable = rendition is chosen or (rendition.language not in languages | {chosen.language})
        languages.add(rendition.language)
        attributes = ["TYPE=AUDIO", f'GROUP-ID="{_AUDIO_GROUP}"', f'NAME="{name}"']
        if rendition.language:
            attributes.append(f'LANGUAGE="{_quotable(rendition.language)}"')
        attributes.append(f"DEFAULT={_yes(rendition is chosen)}")
        attributes.append(f"AUTOSELECT={_yes(selectable)}")
        if rendition.channels:
            attributes.append(f'CHANNELS="{rendition.channels}"')
        attributes.append(f'URI="{_playlist_uri(rendition)}"')
        lines.append("#EXT-X-MEDIA:" + ",".join(attributes))
    return lines


def _default(audio: Sequence[RenditionPlan]) -> RenditionPlan:
    return next((rendition for rendition in audio if rendition.default), audio[0])


def _playlist_uri(rendition: RenditionPlan) -> str:
    return f"{quote(rendition.name, safe='')}/playlist.m3u8"


def _yes(holds: bool) -> str:
    return "YES" if holds else "NO"


def _quotable(text: str) -> str:
    """Section 4.2: a quoted string holds no line break and no double quote; labels come out of strangers' files."""
    return "".join("'" if sign == '"' else sign for sign in text if sign.isprintable())[:128] or "Audio"


def _microseconds(tick: int, timescale: int) -> int:
    return (2 * tick * _MICROSECONDS + timescale) // (2 * timescale)


def _rounded_seconds(microseconds: int) -> int:
    return (2 * microseconds + _MICROSECONDS) // (2 * _MICROSECONDS)
