"""What a track of an MP4 or MOV says of itself (ISO/IEC 14496-12, 8.3 to 8.5; 14496-15): coding, size, rotation, language, edit."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from streamgate.packaging import cmaf, opus
from streamgate.packaging.codecs import aac_codec, av1_codec, avc_codec, hevc_codec
from streamgate.packaging.mp4boxes import Box, IndexRefused, boxes, damaged, first, needed, unpack, version

VIDEO_RECORDS: Mapping[bytes, bytes] = {
    b"avc1": b"avcC",
    b"avc3": b"avcC",
    b"hvc1": b"hvcC",
    b"hev1": b"hvcC",
    b"av01": b"av1C",
}
"""Sample entries of video that can pass through, and the box that holds the decoder's configuration."""

_KEPT_OF_VIDEO = (b"avcC", b"hvcC", b"av1C", b"colr", b"pasp", b"mdcv", b"clli")
_VIDEO_ENTRY = 78
_AAC = 0x40
AAC_OBJECTS = ("mp4a.40.2", "mp4a.40.5", "mp4a.40.29")
_ROTATIONS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}


@dataclass(frozen=True, slots=True)
class Edit:
    """The one edit of a track: ``delay`` in seconds (as numerator, denominator) before it, ``begin`` in ticks of the media
    where it begins, ``length`` in ticks (None: to the end)."""

    delay: tuple[int, int]
    begin: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Description:
    """A track. ``entry``: its sample entry as a box, as its init segment holds it. ``config``: the configuration record.
    ``frame_rate``: where the file states it and its times agree."""

    kind: str
    codec: str
    entry: bytes
    config: bytes
    timescale: int
    edit: Edit
    language: str | None
    enabled: bool
    matrix: bytes
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    sample_rate: int | None = None
    frame_rate: tuple[int, int] | None = None

    @property
    def rotation(self) -> int:
        """Degrees clockwise that the picture is to be turned by: 0, 90, 180 or 270; anything odder counts as 0."""
        a, b, _, c, d = struct.unpack_from(">5i", self.matrix)
        return _ROTATIONS.get((a >> 16, b >> 16, c >> 16, d >> 16), 0)


def kind_of(track: memoryview) -> str | None:
    """``video``, ``audio``, or None for a track of another kind."""
    handler = first(track, b"mdia", b"hdlr")
    if handler is None or len(handler) < 12:
        return None
    return {b"vide": "video", b"soun": "audio"}.get(bytes(handler[8:12]))


def enabled(track: memoryview) -> bool:
    """Whether the track is to be shown."""
    header = first(track, b"tkhd")
    return header is not None and len(header) >= 4 and bool(header[3] & 1)


def describe(track: memoryview, movie_timescale: int) -> Description:
    """Read a ``trak``. Raises `IndexRefused` for what cannot pass through."""
    kind = kind_of(track)
    header = needed(track, b"mdia", b"mdhd")
    at = 20 if version(header) == 1 else 12
    (timescale,) = unpack(">I", header, at)
    if not timescale:
        raise damaged("mdhd")
    (language,) = unpack(">H", header, at + (12 if at == 20 else 8))
    information = needed(track, b"mdia", b"minf")
    _check_self_contained(information)
    entry = _entry(needed(information, b"stbl", b"stsd"))
    shown = needed(track, b"tkhd")
    at = 52 if version(shown) == 1 else 40
    matrix = bytes(shown[at : at + 36])
    if len(matrix) != 36:
        raise damaged("tkhd")
    common = {
        "timescale": timescale,
        "edit": _edit(track, timescale, movie_timescale),
        "language": _letters(language),
        "enabled": enabled(track),
        "matrix": matrix,
    }
    return (_video if kind == "video" else _audio)(entry, common)


def _check_self_contained(information: memoryview) -> None:
    references = first(information, b"dinf", b"dref")
    if references is None:
        return
    for reference in boxes(references[8:]):
        if (
            reference.kind not in {b"url ", b"urn ", b"alis"}
            or len(reference.content) < 4
            or not reference.content[3] & 1
        ):
            raise IndexRefused("external_data", "The film's media lies in another file.")


def _entry(descriptions: memoryview) -> Box:
    (count,) = unpack(">I", descriptions, 4)
    found = list(boxes(descriptions[8:]))
    if count != 1 or len(found) != 1:
        raise IndexRefused("stsd_entries", "The coding changes in the middle of the track; every rendition is encoded.")
    if found[0].kind in {b"encv", b"enca"}:
        raise IndexRefused("encrypted", "The track is encrypted.")
    return found[0]


def _video(entry: Box, common: dict[str, object]) -> Description:
    record = VIDEO_RECORDS.get(entry.kind)
    if record is None:
        raise _no_browser(entry.kind, "video")
    if len(entry.content) < _VIDEO_ENTRY:
        raise damaged("a sample entry is too short")
    inside = entry.content[_VIDEO_ENTRY:]
    kept = [box for box in _trailing(inside) if box.kind in _KEPT_OF_VIDEO]
    config = next((bytes(box.content) for box in kept if box.kind == record), None)
    if config is None:
        raise IndexRefused("no_config", "The video lacks the configuration of its decoder.")
    width, height = unpack(">2H", entry.content, 24)
    try:
        codec = video_codec(entry.kind, config)
    except ValueError:
        raise IndexRefused("no_config", "The configuration of the video's decoder is damaged.") from None
    return Description(
        kind="video",
        codec=codec,
        entry=cmaf.box(
            entry.kind,
            bytes(entry.content[:_VIDEO_ENTRY]),
            *(cmaf.box(box.kind, bytes(box.content)) for box in kept),
        ),
        config=config,
        width=width,
        height=height,
        **common,  # type: ignore[arg-type]
    )


def _trailing(content: memoryview) -> list[Box]:
    """The boxes behind a sample entry's fields; QuickTime ends them with four zero bytes."""
    if len(content) >= 4 and not any(content[-4:]) and len(content) % 4 == 0:
        try:
            return list(boxes(content))
        except IndexRefused:
            content = content[:-4]
    return list(boxes(content))


def video_codec(kind: bytes, config: bytes) -> str:
    name = kind.decode("ascii")
    if name.startswith("avc"):
        if not config[5:6] or (name == "avc1" and not config[5] & 0x1F):
            raise ValueError("no parameter sets")
        return avc_codec(config).replace("avc1", name)
    if name == "av01":
        return av1_codec(config)
    return hevc_codec(config, name)


def _audio(entry: Box, common: dict[str, object]) -> Description:
    if entry.kind == b"Opus":
        return _opus(entry, common)
    if entry.kind != b"mp4a":
        raise _no_browser(entry.kind, "sound")
    (sound_version,) = unpack(">H", entry.content, 8)
    channels, _, _, _, rate = unpack(">4HI", entry.content, 16)
    inside = entry.content[{0: 28, 1: 44, 2: 64}.get(sound_version, 28) :]
    found = {box.kind: box.content for box in _trailing(inside)}
    if b"esds" not in found and b"wave" in found:
        found |= {box.kind: box.content for box in boxes(found[b"wave"]) if box.kind == b"esds"}
    if b"esds" not in found:
        raise IndexRefused("no_config", "The sound lacks the configuration of its decoder.")
    config = _aac_config(found[b"esds"])
    codec = aac_codec(config)
    if codec not in AAC_OBJECTS:
        raise _no_browser(entry.kind, "sound")
    channels, sample_rate = aac_shape(config, channels, rate >> 16)
    track = cmaf.AudioTrack(sample_rate, channels, config, 0)
    return Description(
        kind="audio",
        codec=codec,
        entry=cmaf.aac_entry(track),
        config=config,
        channels=channels,
        sample_rate=sample_rate,
        **common,  # type: ignore[arg-type]
    )


def _opus(entry: Box, common: dict[str, object]) -> Description:
    config = next((bytes(box.content) for box in _trailing(entry.content[28:]) if box.kind == b"dOps"), b"")
    try:
        config = opus.checked(config)
    except ValueError:
        raise IndexRefused("no_config", "The configuration of the sound's decoder is damaged.") from None
    return Description(
        kind="audio",
        codec="opus",
        entry=opus.entry(config, 0),
        config=config,
        channels=config[1],
        sample_rate=opus.RATE,
        **common,  # type: ignore[arg-type]
    )


def _no_browser(kind: bytes, what: str) -> IndexRefused:
    name = kind.decode("ascii", "replace").strip()
    return IndexRefused("codec", f"The {what} ({name}) is of a kind that is not served as it is.")


_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def aac_shape(config: bytes, channels: int, rate: int) -> tuple[int, int]:
    """Channels and rate of an AudioSpecificConfig (14496-3, 1.6.2.1), the sample entry's where it does not say."""
    bits = int.from_bytes(config[:8].ljust(8, b"\0"), "big")
    at = 64 - 5
    if bits >> at == 31:
        at -= 6
    at -= 4
    index = bits >> at & 15
    if index == 15:
        at -= 24
        rate = bits >> at & 0xFFFFFF
    elif index < len(_RATES):
        rate = _RATES[index]
    at -= 4
    layout = bits >> at & 15
    channels = {7: 8}.get(layout, layout) or channels
    if not 1 <= channels <= 8 or not 1 <= rate <= 192_000:
        raise IndexRefused("no_config", "The configuration of the sound's decoder is damaged.")
    return channels, rate


def _aac_config(esds: memoryview) -> bytes:
    """The AudioSpecificConfig of an ``esds`` box (14496-1, 7.2.6): ES_Descriptor, DecoderConfigDescriptor, its specific info."""
    content = _descriptor(esds[4:], 3)
    if len(content) < 3:
        raise damaged("esds")
    flags = content[2]
    at = 3 + (2 if flags & 0x80 else 0)
    if flags & 0x40:
        at += 1 + (content[at] if at < len(content) else 0)
    at += 2 if flags & 0x20 else 0
    decoder = _descriptor(content[at:], 4)
    if len(decoder) < 13:
        raise damaged("esds")
    if decoder[0] != _AAC:
        raise _no_browser(b"mp4a", "sound")
    config = bytes(_descriptor(decoder[13:], 5))
    if len(config) < 2:
        raise damaged("esds")
    return config


def _descriptor(content: memoryview, tag: int) -> memoryview:
    """The body of the descriptor that a content begins with."""
    if not len(content) or content[0] != tag:
        raise damaged("esds")
    length, at = 0, 1
    for at in range(1, 6):
        if at >= len(content):
            raise damaged("esds")
        length = length << 7 | content[at] & 0x7F
        if not content[at] & 0x80:
            break
    return content[at + 1 : at + 1 + length]


def _letters(packed: int) -> str | None:
    """A language of ISO 639-2 out of fifteen bits; None for none, or for one of QuickTime's numbers."""
    letters = "".join(chr(0x60 + (packed >> shift & 31)) for shift in (10, 5, 0))
    return letters if packed >= 0x400 and letters.isalpha() and letters.islower() and letters != "und" else None


def _edit(track: memoryview, timescale: int, movie_timescale: int) -> Edit:
    """The edit list, if it is none, or an optional delay and one edit at the usual rate. An empty edit at the end says nothing."""
    table = first(track, b"edts", b"elst")
    if table is None:
        return Edit((0, 1), 0, None)
    (count,) = unpack(">I", table, 4)
    form, step = (">QqHH", 20) if version(table) == 1 else (">IiHH", 12)
    if count > 16 or 8 + count * step > len(table):
        raise IndexRefused("multi_edit", "The track is made of several cuts; every rendition is encoded.")
    rows = [unpack(form, table, 8 + step * n) for n in range(count)]
    delay = 0
    while rows and rows[0][1] == -1:
        delay += rows.pop(0)[0]
    while len(rows) > 1 and rows[-1][1] == -1:
        rows.pop()
    if not rows:
        return Edit((delay, movie_timescale), 0, None)
    if len(rows) > 1 or rows[0][1] < 0:
        raise IndexRefused("multi_edit", "The track is made of several cuts; every rendition is encoded.")
    length, begin, rate, fraction = rows[0]
    if (rate, fraction) != (1, 0):
        raise IndexRefused("edit_rate", "The track is played at another speed; every rendition is encoded.")
    if delay > 48 * 3600 * movie_timescale or begin > 48 * 3600 * timescale:
        raise IndexRefused("too_long", "The track says that it is longer than two days; every rendition is encoded.")
    whole = (length * timescale + movie_timescale // 2) // movie_timescale if length else None
    return Edit((delay, movie_timescale), begin, whole)
