"""Strict checks of manifests: the rules of RFC 8216 and ISO/IEC 23009-1 that ours rely on. Each check raises `Broken`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit

MPD = "{urn:mpeg:dash:schema:mpd:2011}"
Fetch = Callable[[str], str]

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|\Z)')
_TYPES = {
    "BANDWIDTH": r"[1-9]\d*",
    "RESOLUTION": r"\d+x\d+",
    "FRAME-RATE": r"\d+\.\d{1,3}",
    "CODECS": r'"[^"]+"',
    "AUDIO": r'"[^"]+"',
    "SUBTITLES": r'"[^"]+"',
    "CLOSED-CAPTIONS": r'NONE|"[^"]+"',
    "TYPE": "AUDIO|SUBTITLES",
    "GROUP-ID": r'"[^"]+"',
    "NAME": r'"[^"]+"',
    "LANGUAGE": r'"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*"',
    "DEFAULT": "YES|NO",
    "AUTOSELECT": "YES|NO",
    "FORCED": "YES|NO",
    "CHANNELS": r'"\d+"',
    "URI": r'"[^"]+"',
}
_CODEC = re.compile(r"(avc1\.[0-9A-F]{6}|mp4a\.40\.2)\Z")


class Broken(AssertionError):
    """A manifest breaks a rule."""


def require(holds: object, rule: str) -> None:
    """Raise `Broken` with the rule unless it holds."""
    if not holds:
        raise Broken(rule)


@dataclass
class Master:
    """A multivariant playlist, taken apart. URIs are as written."""

    variants: list[tuple[dict[str, str], str]] = field(default_factory=list)
    media: list[dict[str, str]] = field(default_factory=list)
    iframes: list[dict[str, str]] = field(default_factory=list)

    def playlists(self) -> list[str]:
        """Every media playlist that it names, once."""
        named = [uri for _, uri in self.variants] + [m["URI"] for m in self.media if "URI" in m]
        return list(dict.fromkeys(named))


def attributes(text: str) -> dict[str, str]:
    """An attribute list (RFC 8216 section 4.2), quotes taken off."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _ATTRIBUTE.match(text, at)
        require(match, f"4.2: not an attribute list at {text[at : at + 30]!r}")
        assert match is not None
        name, value = match[1], match[2]
        require(name not in found, f"4.2: {name} stands twice")
        require(re.fullmatch(_TYPES.get(name, ".*"), value), f"4.3: {name}={value} is of the wrong type")
        found[name] = value.strip('"')
        at = match.end()
    return found


def _lines(text: str) -> list[str]:
    require(text.startswith("#EXTM3U\n"), "4.3.1.1: the first line is #EXTM3U")
    require("\r" not in text and "\ufeff" not in text, "4.1: neither BOM nor stray carriage returns")
    lines = [line for line in text.split("\n") if line]
    for once in ("#EXTM3U", "#EXT-X-VERSION", "#EXT-X-ENDLIST", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE"):
        require(sum(line.split(":")[0] == once for line in lines) <= 1, f"4.3: {once} stands at most once")
    return lines


def check_master(text: str) -> Master:
    """A multivariant playlist (sections 4.3.4 and 4.3.5)."""
    lines = _lines(text)
    require(not any(line.startswith(("#EXTINF", "#EXT-X-TARGETDURATION")) for line in lines), "4.1: no media tags")
    master = Master()
    pending: dict[str, str] | None = None
    for line in lines:
        tag, _, rest = line.partition(":")
        if pending is not None:
            require(not line.startswith("#"), "4.3.4.2: a URI follows EXT-X-STREAM-INF")
            master.variants.append((pending, line))
            pending = None
        elif tag == "#EXT-X-STREAM-INF":
            pending = attributes(rest)
            require("BANDWIDTH" in pending and "CODECS" in pending, "4.3.4.2: BANDWIDTH and CODECS")
        elif tag == "#EXT-X-MEDIA":
            master.media.append(_member(attributes(rest)))
        elif tag == "#EXT-X-I-FRAME-STREAM-INF":
            master.iframes.append(attributes(rest))
            require({"BANDWIDTH", "URI"} <= master.iframes[-1].keys(), "4.3.4.3: BANDWIDTH and URI")
        else:
            require(line.startswith("#"), "4.3.4.2: a URI without EXT-X-STREAM-INF")
    require(pending is None and master.variants, "4.3.4.2: at least one variant, each with its URI")
    _groups(master)
    return master


def _member(member: dict[str, str]) -> dict[str, str]:
    require({"TYPE", "GROUP-ID", "NAME"} <= member.keys(), "4.3.4.1: TYPE, GROUP-ID and NAME are there")
    require(member.get("AUTOSELECT") == "YES" or member.get("DEFAULT") != "YES", "4.3.4.1: DEFAULT implies AUTOSELECT")
    require(member["TYPE"] == "SUBTITLES" or "FORCED" not in member, "4.3.4.1: FORCED is for subtitles")
    require(member["TYPE"] != "SUBTITLES" or "URI" in member, "4.3.4.1: subtitles have a URI")
    return member


def _groups(master: Master) -> None:
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for member in master.media:
        groups.setdefault((member["TYPE"], member["GROUP-ID"]), []).append(member)
    for members in groups.values():
        names = [member["NAME"] for member in members]
        require(len(set(names)) == len(names), "4.3.4.1.1: names within a group are different")
        require(sum(member.get("DEFAULT") == "YES" for member in members) <= 1, "4.3.4.1.1: at most one DEFAULT")
        chosen = [
            member.get("LANGUAGE")
            for member in members
            if member.get("AUTOSELECT") == "YES" and member["TYPE"] == "AUDIO"
        ]
        require(len(set(chosen)) == len(chosen), "4.3.4.1.1: AUTOSELECT members differ in language")
    used = set()
    for variant, _ in master.variants:
        for kind in ("AUDIO", "SUBTITLES"):
            if kind in variant:
                used.add((kind, variant[kind]))
                require((kind, variant[kind]) in groups, f"4.3.4.2: the group {variant[kind]} exists")
        require(
            all(_CODEC.match(codec) for codec in variant["CODECS"].split(",")), f"CODECS {variant['CODECS']} are exact"
        )
        sounds = "mp4a" in variant["CODECS"]
        require("AUDIO" not in variant or sounds, "4.3.4.2: CODECS names the group's codec")
        require(("RESOLUTION" in variant) == ("avc1" in variant["CODECS"]), "4.3.4.2: video has a RESOLUTION")
    require(used == set(groups), "every group is used by a variant")


@dataclass
class Media:
    """A media playlist, taken apart: (duration in seconds, URI) of each segment."""

    init: str | None
    segments: list[tuple[float, str]]
    iframes: bool

    @property
    def duration(self) -> float:
        """The sum of its segments."""
        return sum(duration for duration, _ in self.segments)


def check_media(text: str) -> Media:
    """A media playlist of a whole film (sections 4.3.2 and 4.3.3)."""
    lines = _lines(text)
    tags = {line.partition(":")[0]: line.partition(":")[2] for line in lines if line.startswith("#")}
    require(re.fullmatch(r"[1-9]\d*", tags.get("#EXT-X-TARGETDURATION", "")), "4.3.3.1: a target duration")
    require(
        tags.get("#EXT-X-PLAYLIST-TYPE") == "VOD" and lines[-1] == "#EXT-X-ENDLIST", "4.3.3.4: a film that is whole"
    )
    version = int(tags.get("#EXT-X-VERSION", "1"))
    iframes = "#EXT-X-I-FRAMES-ONLY" in tags
    init = None
    if "#EXT-X-MAP" in tags:
        require(version >= (5 if iframes else 6), "7: EXT-X-MAP needs a version")
        init = attributes(tags["#EXT-X-MAP"])["URI"]
    require(not iframes or version >= 4, "7: EXT-X-I-FRAMES-ONLY needs version 4")
    segments: list[tuple[float, str]] = []
    pending: float | None = None
    for line in lines:
        if line.startswith("#EXTINF:"):
            require(pending is None, "4.3.2.1: one EXTINF for a segment")
            duration = line.removeprefix("#EXTINF:").partition(",")
            require(duration[1] and re.fullmatch(r"\d+(\.\d+)?", duration[0]), "4.3.2.1: a decimal and a comma")
            require(version >= 3 or "." not in duration[0], "7: decimals need version 3")
            pending = float(duration[0])
        elif not line.startswith("#"):
            require(pending is not None, "4.3.2.1: every segment has a duration")
            segments.append((pending or 0.0, line))
            pending = None
    require(segments and pending is None, "a playlist has segments")
    target = int(tags["#EXT-X-TARGETDURATION"])
    require(
        all(int(duration + 0.5) <= target for duration, _ in segments), "4.3.3.1: no segment is longer than the target"
    )
    require(len({uri for _, uri in segments}) == len(segments), "every segment has an address of its own")
    return Media(init, segments, iframes)


def check_hls(url: str, fetch: Fetch) -> dict[str, Media]:
    """A whole film: the multivariant playlist at ``url`` and all that it names; media playlists by address."""
    master = check_master(fetch(url))
    found: dict[str, Media] = {}
    for uri in master.playlists():
        found[urljoin(url, uri)] = check_media(fetch(urljoin(url, uri)))
    for iframe in master.iframes:
        media = check_media(fetch(urljoin(url, iframe["URI"])))
        require(media.iframes, "4.3.4.3: EXT-X-I-FRAME-STREAM-INF names a playlist of I-frames only")
        found[urljoin(url, iframe["URI"])] = media
    video = [found[urljoin(url, uri)] for variant, uri in master.variants if "RESOLUTION" in variant]
    for media in video[1:]:
        require(
            [d for d, _ in media.segments] == [d for d, _ in video[0].segments], "6.2.4: renditions share boundaries"
        )
    for media in found.values():
        require(
            all(not urlsplit(uri).scheme and ".." not in unquote(uri) for _, uri in media.segments),
            "relative addresses",
        )
    return found


def check_mpd(text: str) -> ET.Element:
    """A static manifest with SegmentTemplate and SegmentTimeline (ISO/IEC 23009-1, 5.3)."""
    root = ET.fromstring(text)
    require(root.tag == f"{MPD}MPD", "5.3.1: the root is MPD")
    require(root.get("profiles") and root.get("minBufferTime"), "5.3.1.2: profiles and minBufferTime")
    require(root.get("type", "static") == "static", "5.3.1.2: a film is static")
    total = _seconds(root.get("mediaPresentationDuration", ""))
    periods = root.findall(f"{MPD}Period")
    require(len(periods) == 1, "one period")
    ids = [r.get("id") for r in root.iter(f"{MPD}Representation")]
    require(all(ids) and len(set(ids)) == len(ids), "5.3.5.2: representation ids are there and different")
    sets = [a.get("id") for a in periods[0].findall(f"{MPD}AdaptationSet")]
    require(sets and len(set(sets)) == len(sets), "5.3.3.2: adaptation set ids are different")
    for adaptation in periods[0].findall(f"{MPD}AdaptationSet"):
        _adaptation(adaptation, total)
    return root


def _adaptation(adaptation: ET.Element, total: float) -> None:
    kind = adaptation.get("contentType")
    representations = adaptation.findall(f"{MPD}Representation")
    require(representations, "5.3.3.2: an adaptation set has a representation")
    for representation in representations:
        require(int(representation.get("bandwidth", "0")) > 0, "5.3.5.2: bandwidth")
        mime = representation.get("mimeType") or adaptation.get("mimeType") or ""
        require(re.fullmatch(r"(video|audio)/mp4|text/vtt", mime), f"5.3.7.2: mimeType {mime}")
        if kind != "text":
            require(_CODEC.match(representation.get("codecs", "")), "5.3.7.2: codecs")
    if kind == "text":
        require(all(r.find(f"{MPD}BaseURL") is not None for r in representations), "5.3.9: text has an address")
        return
    template = adaptation.find(f"{MPD}SegmentTemplate")
    require(template is not None, "5.3.9.4: a segment template")
    assert template is not None
    require("$RepresentationID$" in template.get("media", "") and "$Number$" in template.get("media", ""), "5.3.9.4.4")
    timescale = int(template.get("timescale", "0"))
    require(timescale > 0, "5.3.9.2: timescale")
    at = None
    for entry in template.iter(f"{MPD}S"):
        start, duration, repeats = entry.get("t"), int(entry.get("d", "0")), int(entry.get("r", "0"))
        require(duration > 0 and repeats >= 0, "5.3.9.6: durations are positive")
        require(at is None or start is None or int(start) == at, "5.3.9.6: no gap and no overlap")
        at = (int(start) if start is not None else at or 0) + duration * (repeats + 1)
    require(at is not None, "5.3.9.6: the timeline has entries")
    longest = kind == "video"
    end = (at or 0) / timescale
    require(
        end <= total + 0.05 and (not longest or end > total - 1), "5.3.9.6: the timeline ends with the presentation"
    )


def _seconds(text: str) -> float:
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", text)
    require(match, f"xs:duration: {text!r}")
    assert match is not None
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3] or 0)
