"""DASH manifests (ISO/IEC 23009-1) over the same segments as HLS: SegmentTemplate with SegmentTimeline, complete from the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from streamgate.contracts.transcoder import CaptionPlan, Presentation, RenditionPlan
from streamgate.packaging.hls import audio_tracks

_NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
_PROFILES = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"
_CHANNELS = "urn:mpeg:mpegB:cicp:ChannelConfiguration"
_TEXT_BANDWIDTH = 1000
_ROLE = "urn:mpeg:dash:role:2011"


def manifest(presentation: Presentation) -> str:
    """The static manifest of a film: one adaptation set for its video, one for each coding of each audio track, one for each
    caption track (a WebVTT file beside the segments).

    Addresses are relative to the manifest: ``{rendition}/init.mp4`` and ``{rendition}/{n}.m4s``, n counted from 0.
    """
    video = [rendition for rendition in presentation.renditions if rendition.kind == "video"]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append(
        _open(
            "MPD",
            xmlns=_NAMESPACE,
            profiles=_PROFILES,
            type="static",
            mediaPresentationDuration=_duration(presentation.duration),
            minBufferTime=_duration(_longest(presentation.renditions)),
        )
    )
    lines.append(_open("Period", id="0", start="PT0S"))
    if video:
        lines += _adaptation_set(0, video)
    # Players do not change from one coding of sound to another within a set.
    tracks = [
        [r for r in track if r.codecs == codecs]
        for track in audio_tracks(presentation.renditions)
        for codecs in dict.fromkeys(rendition.codecs for rendition in track)
    ]
    for number, track in enumerate(tracks, start=1):
        lines += _adaptation_set(number, track)
    for number, caption in enumerate(presentation.captions, start=len(tracks) + 1):
        lines += _captions(number, caption)
    lines += ["</Period>", "</MPD>", ""]
    return "\n".join(lines)


def _adaptation_set(number: int, renditions: Sequence[RenditionPlan]) -> Iterator[str]:
    first = renditions[0]
    yield _open(
        "AdaptationSet",
        id=str(number),
        contentType=first.kind,
        mimeType=f"{first.kind}/mp4",
        lang=first.language,
        segmentAlignment="true",
        startWithSAP="1",
        maxWidth=_greatest(rendition.width for rendition in renditions),
        maxHeight=_greatest(rendition.height for rendition in renditions),
    )
    if first.kind == "audio":
        yield _empty("Role", schemeIdUri=_ROLE, value="main" if first.default else "alternate")
        if first.label:
            yield f"<Label>{escape(first.label)}</Label>"
    # Renditions of one kind share their boundaries, so one timeline serves them all, unless they count in other ticks.
    shared = all((r.timescale, r.boundaries) == (first.timescale, first.boundaries) for r in renditions)
    if shared:
        yield from _template(first)
    for rendition in sorted(renditions, key=lambda r: r.bandwidth):
        yield from _representation(rendition, [] if shared else _template(rendition))
    yield "</AdaptationSet>"


def _captions(number: int, caption: CaptionPlan) -> Iterator[str]:
    yield _open("AdaptationSet", id=str(number), contentType="text", mimeType="text/vtt", lang=caption.language)
    yield _empty("Role", schemeIdUri=_ROLE, value="forced-subtitle" if caption.forced else "subtitle")
    if caption.label:
        yield f"<Label>{escape(caption.label)}</Label>"
    yield _open("Representation", id=f"captions-{caption.name}", bandwidth=str(_TEXT_BANDWIDTH))
    yield f"<BaseURL>captions/{quote(caption.name, safe='')}.vtt</BaseURL>"
    yield "</Representation>"
    yield "</AdaptationSet>"


def _template(rendition: RenditionPlan) -> Iterator[str]:
    yield _open(
        "SegmentTemplate",
        timescale=str(rendition.timescale),
        initialization="$RepresentationID$/init.mp4",
        media="$RepresentationID$/$Number$.m4s",
        startNumber="0",
    )
    yield "<SegmentTimeline>"
    time = rendition.boundaries[0]
    for duration, repeats in _runs(rendition.boundaries):
        yield _empty("S", t=str(time), d=str(duration), r=str(repeats) if repeats else None)
        time += duration * (repeats + 1)
    yield "</SegmentTimeline>"
    yield "</SegmentTemplate>"


def _representation(rendition: RenditionPlan, template: Iterable[str]) -> Iterator[str]:
    rate = rendition.frame_rate
    attributes = {
        "id": rendition.name,
        "codecs": rendition.codecs,
        "bandwidth": str(rendition.bandwidth),
        "width": None if rendition.width is None else str(rendition.width),
        "height": None if rendition.height is None else str(rendition.height),
        "sar": "1:1" if rendition.kind == "video" else None,
        "frameRate": None if rate is None else f"{rate[0]}/{rate[1]}" if rate[1] != 1 else str(rate[0]),
        "audioSamplingRate": None if rendition.sample_rate is None else str(rendition.sample_rate),
    }
    inner = [*template]
    if rendition.channels is not None:
        inner.insert(0, _empty("AudioChannelConfiguration", schemeIdUri=_CHANNELS, value=str(rendition.channels)))
    if not inner:
        yield _empty("Representation", **attributes)
        return
    yield _open("Representation", **attributes)
    yield from inner
    yield "</Representation>"


def _runs(boundaries: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(duration, how often it repeats) of consecutive segments of equal length."""
    current: int | None = None
    repeats = 0
    for before, after in pairwise(boundaries):
        if after - before == current:
            repeats += 1
            continue
        if current is not None:
            yield current, repeats
        current, repeats = after - before, 0
    if current is not None:
        yield current, repeats


def _longest(renditions: Sequence[RenditionPlan]) -> float:
    return max(
        (after - before) / rendition.timescale
        for rendition in renditions
        for before, after in pairwise(rendition.boundaries)
    )


def _greatest(values: Iterator[int | None]) -> str | None:
    known = [value for value in values if value is not None]
    return str(max(known)) if known else None


def _duration(seconds: float) -> str:
    """An xs:duration, exact to the microsecond."""
    return f"PT{seconds:.6f}".rstrip("0").rstrip(".") + "S"


def _open(name: str, **attributes: str | None) -> str:
    return f"<{name}{_attributes(attributes)}>"


def _empty(name: str, **attributes: str | None) -> str:
    return f"<{name}{_attributes(attributes)}/>"


def _attributes(attributes: dict[str, str | None]) -> str:
    return "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value is not None)
