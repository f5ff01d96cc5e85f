"""HLS playlists of a film, complete before anything of it is encoded (RFC 8216, version 7, fMP4 segments).

Every URI is relative: a rendition's playlist is ``{rendition}/playlist.m3u8``, and beside it lie ``init.mp4`` and its
segments ``{n}.m4s``, n from 0; a caption track's is
``captions/{name}/playlist.m3u8``, and its one segment ``captions/{name}.vtt``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from urllib.parse import quote

from streamgate.contracts.transcoder import CaptionPlan, Growing, Presentation, RenditionPlan

_VERSION = 7
_EVENT = ["#EXT-X-PLAYLIST-TYPE:EVENT", "#EXT-X-START:TIME-OFFSET=0"]
_MICROSECONDS = 1_000_000
_AUDIO_GROUP = "audio"
_CAPTION_GROUP = "subs"
_OPUS = "opus"


def master_playlist(presentation: Presentation) -> str:
    """The multivariant playlist: a variant per video rendition in the order of the presentation, audio as one group; and all
    variants once more, with Opus, where sound is there as Opus too.

    A film without video has one variant for each rate of its sound. BANDWIDTH is the video's peak plus that of the
    hungriest audio rendition. Captions are one group that every variant names; every encoded video rendition has an
    I-frame playlist. Raises `ValueError` when the presentation has no rendition at all.
    """
    video = [rendition for rendition in presentation.renditions if rendition.kind == "video"]
    tracks = audio_tracks(presentation.renditions)
    if not video and not tracks:
        raise ValueError("a presentation without renditions has no playlist")
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines += _captions_group(presentation.captions)
    captioned = bool(presentation.captions)
    if video:
        groups = _groups(tracks)
        for name, members in groups.items():
            lines += _audio_group(name, members)
        for beside in groups or [None]:
            for rendition in video:
                audio = groups[beside] if beside else []
                lines += [_variant(rendition, audio, beside, captioned=captioned), _playlist_uri(rendition)]
        lines += [_iframe_variant(rendition) for rendition in video if rendition.passthrough is None]
    else:
        tiers = max(len(track) for track in tracks)
        for tier in range(tiers):
            audio = [track[min(tier, len(track) - 1)] for track in tracks]
            group = (_AUDIO_GROUP if tiers == 1 else f"{_AUDIO_GROUP}-{tier + 1}") if len(tracks) > 1 else None
            lines += _audio_group(group, audio) if group else []
            chosen = _default(audio)
            lines += [_variant(chosen, audio, group, captioned=captioned), _playlist_uri(chosen)]
    return "\n".join(lines) + "\n"


def audio_tracks(renditions: Sequence[RenditionPlan]) -> list[list[RenditionPlan]]:
    """The audio renditions by track, each from its lowest rate up, in the order of the presentation."""
    tracks: dict[object, list[RenditionPlan]] = {}
    for rendition in renditions:
        if rendition.kind == "audio":
            tracks.setdefault(rendition.track or rendition.name, []).append(rendition)
    return list(tracks.values())


def _groups(tracks: Sequence[Sequence[RenditionPlan]]) -> dict[str, list[RenditionPlan]]:
    """Sound beside pictures: a group that every player takes, then one of Opus where a track has it too."""
    if not tracks:
        return {}
    groups = {_AUDIO_GROUP: [[r for r in track if r.codecs != _OPUS] or track for track in tracks]}
    if any({r.codecs for r in track} > {_OPUS} for track in tracks):
        groups[f"{_AUDIO_GROUP}-{_OPUS}"] = [[r for r in track if r.codecs == _OPUS] or track for track in tracks]
    return {group: [track[-1] for track in members] for group, members in groups.items()}


def media_playlist(rendition: RenditionPlan, init_name: str = "init.mp4", growing: Growing | None = None) -> str:
    """The playlist of one rendition: all its segments, for a film that is whole.

    Of one that is still being uploaded those that are there, as an EVENT (section 4.3.3.5) that players begin at its beginning.

    Durations are differences of the boundaries rounded to a microsecond, so that any sum of them is off by less
    than a microsecond.
    """
    tags = ["#EXT-X-INDEPENDENT-SEGMENTS"]
    return _playlist(rendition, f'#EXT-X-MAP:URI="{quote(init_name)}"', "{}.m4s", tags, growing)


def iframe_playlist(rendition: RenditionPlan) -> str:
    """The key frames of one video rendition, one for each segment (section 4.3.3.6): small resources ``{n}.iframe.m4s``."""
    return _playlist(rendition, '#EXT-X-MAP:URI="init.mp4"', "{}.iframe.m4s", ["#EXT-X-I-FRAMES-ONLY"])


def caption_playlist(caption: CaptionPlan, duration: float) -> str:
    """The playlist of a caption track: one WebVTT segment, as long as the film (seconds).

    The segment needs no X-TIMESTAMP-MAP (section 3.5): without it cue time 0 is media time 0, where every rendition begins.
    """
    length = max(1, round(duration * _MICROSECONDS))
    whole, rest = divmod(length, _MICROSECONDS)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{max(1, _rounded_seconds(length))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        f"#EXTINF:{whole}.{rest:06d},",
        f"../{quote(caption.name, safe='')}.vtt",
        "#EXT-X-ENDLIST",
    ]
    return "\n".join(lines) + "\n"


def _playlist(
    rendition: RenditionPlan, init: str, segment: str, tags: Sequence[str], growing: Growing | None = None
) -> str:
    edges = [_microseconds(tick, rendition.timescale) for tick in rendition.boundaries]
    durations = [end - start for start, end in itertools.pairwise(edges)]
    longest = growing.target_s if growing is not None else 1
    target = max((_rounded_seconds(duration) for duration in durations), default=1)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{max(longest, target)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        *(["#EXT-X-PLAYLIST-TYPE:VOD"] if growing is None else _EVENT),
        *tags,
        init,
    ]
    for number, duration in enumerate(durations):
        whole, rest = divmod(duration, _MICROSECONDS)
        lines += [f"#EXTINF:{whole}.{rest:06d},", segment.format(number)]
    if growing is None:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _variant(rendition: RenditionPlan, audio: Sequence[RenditionPlan], group: str | None, *, captioned: bool) -> str:
    beside = audio if rendition.kind == "video" else ()
    bandwidth = rendition.bandwidth + max((track.bandwidth for track in beside), default=0)
    codecs = dict.fromkeys((rendition.codecs, *(track.codecs for track in beside)))
    attributes = [f"BANDWIDTH={bandwidth}", f'CODECS="{",".join(codecs)}"']
    if rendition.width and rendition.height:
        attributes.append(f"RESOLUTION={rendition.width}x{rendition.height}")
    if rendition.frame_rate is not None:
        numerator, denominator = rendition.frame_rate
        attributes.append(f"FRAME-RATE={numerator / denominator:.3f}")
    if group is not None:
        attributes.append(f'AUDIO="{group}"')
    if captioned:
        attributes.append(f'SUBTITLES="{_CAPTION_GROUP}"')
    if rendition.kind == "video":
        attributes.append("CLOSED-CAPTIONS=NONE")
    return "#EXT-X-STREAM-INF:" + ",".join(attributes)


def _iframe_variant(rendition: RenditionPlan) -> str:
    """BANDWIDTH is that of the whole rendition: its key frames alone never need more."""
    attributes = [f"BANDWIDTH={rendition.bandwidth}", f'CODECS="{rendition.codecs}"']
    if rendition.width and rendition.height:
        attributes.append(f"RESOLUTION={rendition.width}x{rendition.height}")
    attributes.append(f'URI="{quote(rendition.name, safe="")}/iframes.m3u8"')
    return "#EXT-X-I-FRAME-STREAM-INF:" + ",".join(attributes)


def _captions_group(captions: Sequence[CaptionPlan]) -> list[str]:
    names: set[str] = set()
    lines = []
    chosen = next((caption for caption in captions if caption.default), None)
    taken = {(chosen.language, chosen.forced)} if chosen is not None else set()
    for number, caption in enumerate(captions, start=1):
        name = _name(caption.label or caption.language or f"Captions {number}", number, names)
        # Section 4.3.4.1.1: members that may be chosen by themselves differ in language or in being forced.
        kind = (caption.language, caption.forced)
        selectable = caption is chosen or kind not in taken
        taken.add(kind)
        attributes = ["TYPE=SUBTITLES", f'GROUP-ID="{_CAPTION_GROUP}"', f'NAME="{name}"']
        if caption.language:
            attributes.append(f'LANGUAGE="{_quotable(caption.language)}"')
        attributes += [f"DEFAULT={_yes(caption is chosen)}", f"AUTOSELECT={_yes(selectable)}"]
        attributes.append(f"FORCED={_yes(caption.forced)}")
        attributes.append(f'URI="captions/{quote(caption.name, safe="")}/playlist.m3u8"')
        lines.append("#EXT-X-MEDIA:" + ",".join(attributes))
    return lines


def _name(wanted: str, number: int, taken: set[str]) -> str:
    """A NAME that no other member of the group has (section 4.3.4.1.1)."""
    name = _quotable(wanted)
    while name in taken:
        name = f"{_quotable(wanted)} ({number})"
        number += 1
    taken.add(name)
    return name


def _audio_group(group: str, audio: Sequence[RenditionPlan]) -> list[str]:
    if not audio:
        return []
    chosen = _default(audio)
    names: set[str] = set()
    languages: set[str | None] = set()
    lines = []
    for number, rendition in enumerate(audio, start=1):
        name = _name(rendition.label or rendition.language or f"Audio {number}", number, names)
        # Section 4.3.4.1.1: members that may be chosen by themselves differ in language.
        selectable = rendition is chosen or (rendition.language not in languages | {chosen.language})
        languages.add(rendition.language)
        attributes = ["TYPE=AUDIO", f'GROUP-ID="{group}"', f'NAME="{name}"']
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
