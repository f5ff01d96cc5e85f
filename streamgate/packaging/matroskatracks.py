"""What the tracks of a Matroska or WebM file say of themselves (RFC 9559, section 5.1.4), and that as an MP4 says it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from streamgate.packaging import cmaf, ebml, opus
from streamgate.packaging.codecs import aac_codec
from streamgate.packaging.ebml import Element, damaged
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.sampleentry import AAC_OBJECTS, Description, Edit, aac_shape, video_codec

MAX_TRACKS = 64

_ENTRY = 0xAE
_NUMBER, _TYPE, _ENABLED, _LANGUAGE, _BCP47 = 0xD7, 0x83, 0xB9, 0x22B59C, 0x22B59D
_CODEC, _PRIVATE, _DELAY, _DURATION, _OWN_SCALE = 0x86, 0x63A2, 0x56AA, 0x23E383, 0x23314F
_ENCODINGS, _OPERATION, _VIDEO, _AUDIO = 0x6D80, 0xE2, 0xE0, 0xE1
_WIDTH, _HEIGHT, _SHOWN_WIDTH, _SHOWN_HEIGHT, _SHOWN_UNIT = 0xB0, 0xBA, 0x54B0, 0x54BA, 0x54B2
_CROPS = (0x54AA, 0x54BB, 0x54CC, 0x54DD)
_COLOUR, _MATRIX, _RANGE, _TRANSFER, _PRIMARIES = 0x55B0, 0x55B1, 0x55B9, 0x55BA, 0x55BB
_PROJECTION, _PROJECTION_KIND, _YAW, _PITCH, _ROLL = 0x7670, 0x7671, 0x7673, 0x7674, 0x7675
_CHANNELS, _RATE = 0x9F, 0xB5
_KINDS = {1: "video", 2: "audio", 0x11: "subtitle", 0x21: "metadata"}
_UNITS_OF_PIXELS = (0, 3)
_UNSPECIFIED = 2
_FULL_RANGE = 2
_PARAMETER_SETS = {32, 33, 34}
_ONE, _W = 0x10000, 0x40000000
_TURNED: Mapping[int, tuple[int, int, int, int]] = {
    0: (_ONE, 0, 0, _ONE), 90: (0, _ONE, -_ONE, 0), 180: (-_ONE, 0, 0, -_ONE), 270: (0, -_ONE, _ONE, 0),
}  # fmt: skip
"""Degrees clockwise → a, b, c, d of a track header's matrix."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A track. ``place``: among the tracks that libav makes a stream of, from 0. ``delay`` and ``duration`` in nanoseconds, the
    latter of a frame, None where not stated. ``refused``: a sentence that says why its frames are not its bytes. ``own``: its
    elements for pictures or sound, by identifier."""

    place: int
    number: int
    kind: str
    codec: str
    private: bytes
    enabled: bool
    language: str | None
    delay: int
    duration: int | None
    refused: str | None
    own: Mapping[int, Element]

    def unsigned(self, identifier: int, usual: int = 0) -> int:
        """One of its numbers for pictures or sound."""
        return self.own[identifier].unsigned() if identifier in self.own else usual


def read_tracks(content: memoryview) -> tuple[Entry, ...]:
    """The entries of a ``Tracks`` element in their order, without those that no reader makes a track of."""
    found: list[Entry] = []
    numbers: set[int] = set()
    for element in ebml.elements(content):
        if element.identifier != _ENTRY:
            continue
        said = {inner.identifier: inner for inner in ebml.elements(element.content)}
        kind = _KINDS.get(said[_TYPE].unsigned() if _TYPE in said else 0)
        codec = said[_CODEC].text() if _CODEC in said else ""
        if kind is None or not codec:
            continue
        entry = _entry(len(found), kind, codec, said)
        if not entry.number or entry.number in numbers or len(numbers) == MAX_TRACKS:
            raise damaged("its tracks are not told apart")
        numbers.add(entry.number)
        found.append(entry)
    return tuple(found)


def _entry(place: int, kind: str, codec: str, said: Mapping[int, Element]) -> Entry:
    def number(identifier: int, usual: int = 0) -> int:
        return said[identifier].unsigned() if identifier in said else usual

    refused = None
    if _ENCODINGS in said:
        refused = "The track is compressed or encrypted in a way of its container; every rendition is encoded."
    elif _OPERATION in said or (_OWN_SCALE in said and said[_OWN_SCALE].real() != 1.0):
        refused = "The track is made of others, or has a clock of its own; every rendition is encoded."
    own = said.get(_VIDEO if kind == "video" else _AUDIO)
    language = (
        said[_BCP47].text().split("-", 1)[0]
        if _BCP47 in said
        else said[_LANGUAGE].text()
        if _LANGUAGE in said
        else "eng"
    )
    return Entry(
        place=place,
        number=number(_NUMBER),
        kind=kind,
        codec=codec,
        private=bytes(said[_PRIVATE].content) if _PRIVATE in said else b"",
        enabled=bool(number(_ENABLED, 1)),
        language=language if len(language) == 3 and language != "und" else None,
        delay=number(_DELAY),
        duration=number(_DURATION) or None,
        refused=refused,
        own={inner.identifier: inner for inner in ebml.elements(own.content)} if own is not None else {},
    )


def describe(entry: Entry, timescale: int) -> Description:
    """The track as an MP4 describes it; ``timescale``: of its pictures, sound has its own. Raises `IndexRefused`."""
    if entry.refused is not None:
        raise IndexRefused("packed", entry.refused)
    try:
        return _video(entry, timescale) if entry.kind == "video" else _audio(entry)
    except ValueError:
        raise IndexRefused("no_config", "The configuration of the track's decoder is damaged or missing.") from None


def _video(entry: Entry, timescale: int) -> Description:
    kinds = {
        "V_MPEG4/ISO/AVC": (b"avc1", b"avcC"),
        "V_MPEGH/ISO/HEVC": (b"hvc1", b"hvcC"),
        "V_AV1": (b"av01", b"av1C"),
    }
    if entry.codec not in kinds:
        raise IndexRefused("codec", f"The video ({entry.codec[:40]}) is of a kind that is not served as it is.")
    if any(entry.unsigned(crop) for crop in _CROPS):
        raise IndexRefused("codec", "The picture is to be cut at its edges; every rendition is encoded.")
    kind, record = kinds[entry.codec]
    codec = video_codec(kind, entry.private)
    if kind == b"hvc1" and not _hevc_arrays(entry.private) >= _PARAMETER_SETS:
        raise ValueError("no parameter sets")
    width, height = entry.unsigned(_WIDTH), entry.unsigned(_HEIGHT)
    if not 0 < width < 1 << 16 or not 0 < height < 1 << 16:
        raise ValueError("no size")
    fields = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, b"", 0x18, -1)
    turn = _turn(entry)
    a, b, c, d = _TURNED[turn]
    return Description(
        kind="video",
        codec=codec,
        entry=cmaf.box(kind, fields, cmaf.box(record, entry.private), *_colours(entry), *_shape(entry, width, height)),
        config=entry.private,
        timescale=timescale,
        edit=Edit((0, 1), 0, None),
        language=entry.language,
        enabled=entry.enabled,
        matrix=struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, _W),
        width=width,
        height=height,
    )


def _hevc_arrays(config: bytes) -> set[int]:
    """The kinds of parameter sets in an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1)."""
    at, kinds = 23, set()
    for _ in range(config[22]):
        if at + 3 > len(config):
            raise ValueError("cut off")
        kinds.add(config[at] & 0x3F)
        (count,) = struct.unpack_from(">H", config, at + 1)
        at += 3
        for _ in range(count):
            if at + 2 > len(config):
                raise ValueError("cut off")
            at += 2 + struct.unpack_from(">H", config, at)[0]
    return kinds


def _colours(entry: Entry) -> list[bytes]:
    if _COLOUR not in entry.own:
        return []
    said = {element.identifier: element.unsigned() for element in ebml.elements(entry.own[_COLOUR].content)
            if element.identifier in {_MATRIX, _RANGE, _TRANSFER, _PRIMARIES}}  # fmt: skip
    named = [said.get(name, _UNSPECIFIED) for name in (_PRIMARIES, _TRANSFER, _MATRIX)]
    if max(named) > 0xFF or named == [_UNSPECIFIED] * 3:
        return []
    return [cmaf.box(b"colr", b"nclx", struct.pack(">3HB", *named, 0x80 if said.get(_RANGE) == _FULL_RANGE else 0))]


def _shape(entry: Entry, width: int, height: int) -> list[bytes]:
    """The shape of a pixel, where the picture is to be shown in another one than it is stored in."""
    shown = entry.unsigned(_SHOWN_WIDTH, width), entry.unsigned(_SHOWN_HEIGHT, height)
    if entry.unsigned(_SHOWN_UNIT) not in _UNITS_OF_PIXELS or not all(0 < side < 1 << 20 for side in shown):
        return []
    across, down = shown[0] * height, shown[1] * width
    common = gcd(across, down)
    return [cmaf.box(b"pasp", struct.pack(">2I", across // common, down // common))]


def _turn(entry: Entry) -> int:
    """Degrees clockwise that the picture is to be turned by (section 5.1.4.1.28.41)."""
    if _PROJECTION not in entry.own:
        return 0
    said = {element.identifier: element for element in ebml.elements(entry.own[_PROJECTION].content)}
    flat = not said[_PROJECTION_KIND].unsigned() if _PROJECTION_KIND in said else True
    yaw, pitch, roll = (said[name].real() if name in said else 0.0 for name in (_YAW, _PITCH, _ROLL))
    turn = -roll % 360
    if not flat or yaw or pitch or turn not in _TURNED:
        raise IndexRefused("codec", "The picture is turned or bent in an unusual way; every rendition is encoded.")
    return int(turn)


def _audio(entry: Entry) -> Description:
    config = entry.private
    if entry.codec == "A_AAC":
        codec = aac_codec(entry.private)
        if codec not in AAC_OBJECTS or (codec == "mp4a.40.2" and entry.private[1] & 0x04):  # frames of 960 samples
            raise IndexRefused("codec", f"The sound ({codec}) is of a kind that is not served as it is.")
        rate = entry.own[_RATE].real() if _RATE in entry.own else 8000.0
        channels, sample_rate = aac_shape(
            entry.private, entry.unsigned(_CHANNELS, 1), int(rate) if 0 < rate < 1e6 else 0
        )
        sample_entry = cmaf.aac_entry(cmaf.AudioTrack(sample_rate, channels, entry.private, 0))
    elif entry.codec == "A_OPUS":
        codec, sample_rate = "opus", opus.RATE
        config = opus.from_head(entry.private)
        channels = config[1]
        sample_entry = opus.entry(config, 0)
    else:
        raise IndexRefused("codec", f"The sound ({entry.codec[:40]}) is of a kind that is not served as it is.")
    return Description(
        kind="audio",
        codec=codec,
        entry=sample_entry,
        config=config,
        timescale=sample_rate,
        edit=Edit((0, 1), round(entry.delay * sample_rate / 10**9), None),
        language=entry.language,
        enabled=entry.enabled,
        matrix=struct.pack(">9i", *_TURNED[0][:2], 0, *_TURNED[0][2:], 0, 0, 0, _W),
        channels=channels,
        sample_rate=sample_rate,
    )
