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
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*\Z")
_BASIC = {"#EXTM3U", "#EXT-X-VERSION", "#EXT-X-INDEPENDENT-SEGMENTS"}
_MASTER_TAGS = {"#EXT-X-MEDIA", "#EXT-X-STREAM-INF", "#EXT-X-I-FRAME-STREAM-INF"}
_MEDIA_TAGS = {
    "#EXTINF",
    "#EXT-X-TARGETDURATION",
    "#EXT-X-MEDIA-SEQUENCE",
    "#EXT-X-PLAYLIST-TYPE",
    "#EXT-X-I-FRAMES-ONLY",
    "#EXT-X-MAP",
    "#EXT-X-ENDLIST",
}
_SEVERAL = {*_MASTER_TAGS, "#EXTINF"}
_TOLERANCE_S = 0.001


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


def _lines(text: str, allowed: set[str]) -> list[str]:
    require(text.startswith("#EXTM3U\n"), "4.3.1.1: the first line is #EXTM3U")
    require("\r" not in text and "\ufeff" not in text, "4.1: neither BOM nor stray carriage returns")
    require(text.endswith("\n"), "4.1: lines end with a line feed")
    lines = [line for line in text.split("\n") if line]
    require(all(line == line.strip() for line in lines), "4.1: no white space around a line")
    tags = [line.partition(":")[0] for line in lines if line.startswith("#")]
    for tag in tags:
        require(tag in _BASIC | allowed, f"4.1: {tag} does not belong into this kind of playlist")
        require(tag in _SEVERAL or tags.count(tag) == 1, f"4.3: {tag} stands at most once")
    return lines


def check_master(text: str) -> Master:
    """A multivariant playlist (sections 4.3.4 and 4.3.5)."""
    lines = _lines(text, _MASTER_TAGS)
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
            _iframes(master.iframes[-1])
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


def _iframes(stream: dict[str, str]) -> None:
    require({"BANDWIDTH", "CODECS", "URI"} <= stream.keys(), "4.3.4.3: BANDWIDTH, CODECS and URI")
    require(not {"FRAME-RATE", "AUDIO", "SUBTITLES"} & stream.keys(), "4.3.4.3: no FRAME-RATE and no groups")
    require(
        stream["CODECS"].startswith("avc1.") and _CODEC.match(stream["CODECS"]), "4.3.4.3: CODECS of pictures alone"
    )
    require("RESOLUTION" in stream, "4.3.4.3: video has a RESOLUTION")


def _groups(master: Master) -> None:
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for member in master.media:
        groups.setdefault((member["TYPE"], member["GROUP-ID"]), []).append(member)
    alike: dict[str, list[dict[str, str]]] = {}
    for (kind, _), members in groups.items():
        _group(members)
        same = [{k: v for k, v in m.items() if k not in {"GROUP-ID", "URI", "CHANNELS"}} for m in members]
        require(alike.setdefault(kind, same) == same, "4.3.4.1.1: groups of one type have the same members")
    used = set()
    for variant, _ in master.variants:
        for kind in ("AUDIO", "SUBTITLES"):
            if kind in variant:
                used.add((kind, variant[kind]))
                require((kind, variant[kind]) in groups, f"4.3.4.2: the group {variant[kind]} exists")
        _codecs(variant)
    require(used == set(groups), "every group is used by a variant")
    for kind in ("AUDIO", "SUBTITLES"):
        having = {kind in variant for variant, _ in master.variants}
        require(len(having) == 1, f"4.3.4.2.1: all variants name a group of type {kind}, or none does")


def _group(members: list[dict[str, str]]) -> None:
    names = [member["NAME"] for member in members]
    require(len(set(names)) == len(names), "4.3.4.1.1: names within a group are different")
    require(sum(member.get("DEFAULT") == "YES" for member in members) <= 1, "4.3.4.1.1: at most one DEFAULT")
    chosen = [(m.get("LANGUAGE"), m.get("FORCED", "NO")) for m in members if m.get("AUTOSELECT") == "YES"]
    require(len(set(chosen)) == len(chosen), "4.3.4.1.1: AUTOSELECT members differ in language or FORCED")
    addresses = [member["URI"] for member in members if "URI" in member]
    require(len(set(addresses)) == len(addresses), "members of a group have addresses of their own")


def _codecs(variant: dict[str, str]) -> None:
    codecs = variant["CODECS"].split(",")
    require(all(_CODEC.match(codec) for codec in codecs), f"CODECS {variant['CODECS']} are exact")
    require(len(set(codecs)) == len(codecs), "CODECS names each codec once")
    sounds, shows = "mp4a.40.2" in codecs, any(codec.startswith("avc1.") for codec in codecs)
    require("AUDIO" not in variant or sounds, "4.3.4.2: CODECS names the group's codec")
    require(not shows or sounds == ("AUDIO" in variant), "4.3.4.2: pictures have their sound in a group")
    require(("RESOLUTION" in variant) == shows, "4.3.4.2: video has a RESOLUTION")


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
    lines = _lines(text, _MEDIA_TAGS)
    tags = {line.partition(":")[0]: line.partition(":")[2] for line in lines if line.startswith("#")}
    require(re.fullmatch(r"[1-9]\d*", tags.get("#EXT-X-TARGETDURATION", "")), "4.3.3.1: a target duration")
    require(
        tags.get("#EXT-X-PLAYLIST-TYPE") == "VOD" and lines[-1] == "#EXT-X-ENDLIST", "4.3.3.4: a film that is whole"
    )
    require(re.fullmatch(r"[1-9]\d*", tags.get("#EXT-X-VERSION", "1")), "4.3.1.2: a version is a number")
    version = int(tags.get("#EXT-X-VERSION", "1"))
    iframes = "#EXT-X-I-FRAMES-ONLY" in tags
    init = None
    if "#EXT-X-MAP" in tags:
        require(version >= (5 if iframes else 6), "7: EXT-X-MAP needs a version")
        named = attributes(tags["#EXT-X-MAP"])
        require("URI" in named, "4.3.2.5: EXT-X-MAP has a URI")
        init = named["URI"]
        kinds = [line.partition(":")[0] for line in lines]
        require(kinds.index("#EXT-X-MAP") < kinds.index("#EXTINF"), "4.3.2.5: EXT-X-MAP stands before its segments")
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
    require(init is not None or not any(uri.endswith(".m4s") for _, uri in segments), "3.3: fMP4 has an EXT-X-MAP")
    target = int(tags["#EXT-X-TARGETDURATION"])
    require(
        all(int(duration + 0.5) <= target for duration, _ in segments), "4.3.3.1: no segment is longer than the target"
    )
    require(len({uri for _, uri in segments}) == len(segments), "every segment has an address of its own")
    return Media(init, segments, iframes)


def check_hls(url: str, fetch: Fetch, exists: Callable[[str], bool] | None = None) -> dict[str, Media]:
    """A whole film: the multivariant playlist at ``url`` and all that it names; media playlists by address.

    ``exists`` is asked about every init segment and segment.
    """
    master = check_master(fetch(url))
    found: dict[str, Media] = {}
    for uri in [*master.playlists(), *(iframe["URI"] for iframe in master.iframes)]:
        found[_below(url, url, uri)] = check_media(fetch(_below(url, url, uri)))
    video = [found[urljoin(url, uri)] for variant, uri in master.variants if "RESOLUTION" in variant]
    still = [found[urljoin(url, iframe["URI"])] for iframe in master.iframes]
    require(
        all(media.iframes for media in still), "4.3.4.3: EXT-X-I-FRAME-STREAM-INF names a playlist of I-frames only"
    )
    require(not any(media.iframes for media in video), "4.3.3.6: a variant plays, not only its I-frames")
    for media in [*video[1:], *still]:
        require(
            [d for d, _ in media.segments] == [d for d, _ in video[0].segments], "6.2.4: renditions share boundaries"
        )
    for playlist, media in found.items():
        for uri in [*([media.init] if media.init else []), *(uri for _, uri in media.segments)]:
            address = _below(url, playlist, uri)
            require(exists is None or exists(address), f"{address} is there")
    return found


def _below(root: str, base: str, uri: str) -> str:
    """The address that a relative URI means; it lies beside the multivariant playlist or below."""
    require(not urlsplit(uri).scheme and not uri.startswith("/"), f"{uri} is relative")
    address = urljoin(base, uri)
    inside = address.startswith(root[: root.rfind("/") + 1]) and ".." not in unquote(address).split("/")
    require(inside, f"{uri} stays with its film")
    return address


def check_mpd(text: str) -> ET.Element:
    """A static manifest with SegmentTemplate and SegmentTimeline (ISO/IEC 23009-1, 5.3)."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise Broken(f"XML: {error}") from None
    require(root.tag == f"{MPD}MPD", "5.3.1: the root is MPD")
    require(root.get("profiles"), "5.3.1.2: profiles")
    require(root.get("type", "static") == "static", "5.3.1.2: a film is static")
    total, buffer = _seconds(root.get("mediaPresentationDuration", "")), _seconds(root.get("minBufferTime", ""))
    require(total > 0 and buffer > 0, "5.3.1.2: durations are positive")
    periods = root.findall(f"{MPD}Period")
    require(len(periods) == 1, "one period")
    require(_seconds(periods[0].get("start", "PT0S")) == 0, "5.3.2.2: the film begins at 0")
    ids = [r.get("id") for r in root.iter(f"{MPD}Representation")]
    require(all(ids) and len(set(ids)) == len(ids), "5.3.5.2: representation ids are there and different")
    adaptations = periods[0].findall(f"{MPD}AdaptationSet")
    sets = [str(_number(a, "id")) for a in adaptations]
    require(sets and len(set(sets)) == len(sets), "5.3.3.2: adaptation set ids are different")
    ends = [end for a in adaptations if (end := _adaptation(a)) is not None]
    require(
        ends and abs(max(ends) - total) <= _TOLERANCE_S, "5.3.9.6: the longest timeline is as long as the presentation"
    )
    return root


def _number(element: ET.Element, name: str, least: int = 0, default: str = "") -> int:
    text = element.get(name, default)
    require(re.fullmatch(r"\d+", text) and int(text) >= least, f"5.3: {name}={text!r} is a number from {least} on")
    return int(text)


def _adaptation(adaptation: ET.Element) -> float | None:
    """When its timeline ends (seconds); None for text, which has none."""
    kind = adaptation.get("contentType")
    require(kind in {"video", "audio", "text"}, f"5.3.3.2: contentType {kind}")
    language = adaptation.get("lang")
    require(language is None or _LANGUAGE.match(language), f"5.3.3.2: lang {language}")
    representations = adaptation.findall(f"{MPD}Representation")
    require(representations, "5.3.3.2: an adaptation set has a representation")
    rates = [_number(representation, "bandwidth", 1) for representation in representations]
    require(rates == sorted(rates), "representations stand lowest first")
    for representation in representations:
        mime = representation.get("mimeType") or adaptation.get("mimeType") or ""
        require(mime == ("text/vtt" if kind == "text" else f"{kind}/mp4"), f"5.3.7.2: mimeType {mime}")
        if kind == "text":
            address = representation.findtext(f"{MPD}BaseURL") or ""
            require(address, "5.3.9: text has an address")
            require(not urlsplit(address).scheme and not address.startswith(("/", ".")), "5.6: the address is relative")
        else:
            _representation(adaptation, representation, kind or "")
    return None if kind == "text" else _timeline(adaptation)


def _representation(adaptation: ET.Element, representation: ET.Element, kind: str) -> None:
    codec = representation.get("codecs", "")
    require(_CODEC.match(codec) and codec.startswith("avc1" if kind == "video" else "mp4a"), f"5.3.7.2: codecs {codec}")
    if kind == "video":
        for side, most in (("width", "maxWidth"), ("height", "maxHeight")):
            size = _number(representation, side, 2)
            require(
                most not in adaptation.attrib or size <= _number(adaptation, most), f"5.3.3.2: {side} within {most}"
            )
        rate = representation.get("frameRate")
        require(rate is None or re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", rate), f"5.3.7.2: frameRate {rate}")
    else:
        _number(representation, "audioSamplingRate", 1)
        require(representation.find(f"{MPD}AudioChannelConfiguration") is not None, "5.3.7.2: channels are told")


def _timeline(adaptation: ET.Element) -> float:
    template = adaptation.find(f"{MPD}SegmentTemplate")
    require(template is not None, "5.3.9.4: a segment template")
    assert template is not None
    media, init = template.get("media", ""), template.get("initialization", "")
    require("$RepresentationID$" in media and "$Number$" in media, "5.3.9.4.4: media names representation and number")
    require(
        "$RepresentationID$" in init and "$Number$" not in init, "5.3.9.4.4: initialization names the representation"
    )
    timescale = _number(template, "timescale", 1)
    _number(template, "startNumber", default="1")
    at: int | None = None
    for entry in template.iter(f"{MPD}S"):
        start = _number(entry, "t", default=str(at or 0))
        require(at is None or start == at, "5.3.9.6: no gap and no overlap")
        at = start + _number(entry, "d", 1) * (_number(entry, "r", default="0") + 1)
    require(at is not None, "5.3.9.6: the timeline has entries")
    return (at or 0) / timescale


def _seconds(text: str) -> float:
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", text)
    require(match, f"xs:duration: {text!r}")
    assert match is not None
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3] or 0)
