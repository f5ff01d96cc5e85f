"""Pictures and sound as MPEG-TS carries them, made into samples of an MP4: H.264 and HEVC by their units, AAC by its frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_START = b"\0\0\1"
_DELIMITERS = {"h264": {9}, "hevc": {35}}
PARAMETERS = {"h264": (7, 8), "hevc": (32, 33, 34)}
"""Kinds of units that hold parameter sets, in the order of the configuration record."""

_SLICES = {"h264": range(1, 6), "hevc": range(32)}
_KEYS = {"h264": range(5, 6), "hevc": range(16, 22)}
_FIRST = 0x80
"""Set in the first byte of a slice's header where the slice is the first of a picture."""

_HIGH = {100, 110, 122, 144}
_420, _8_BIT = 1, 0
_RATES = 13
_HERTZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_MAIN, _LC = 1, 2


def units(data: bytes) -> list[bytes]:
    """The units of a byte stream (ISO/IEC 14496-10, annex B; 23008-2, annex B), without start codes and padding."""
    return [unit for part in data.split(_START)[1:] if (unit := part.rstrip(b"\0"))]


def kind(unit: bytes, codec: str) -> int:
    """The type of a unit; ``codec``: ``h264`` or ``hevc``."""
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def sample(data: bytes, codec: str, known: frozenset[bytes]) -> bytes:
    """A picture with the length before each unit (14496-15, 5.3.3), without parameter sets and delimiters.

    `ValueError` for a parameter set that is not ``known``: the coding changes there.
    """
    kept = []
    for unit in units(data):
        found = kind(unit, codec)
        if found in PARAMETERS[codec]:
            if unit not in known:
                raise ValueError("another parameter set")
        elif found not in _DELIMITERS[codec]:
            kept += [len(unit).to_bytes(4, "big"), unit]
    return b"".join(kept)


def key_picture(data: bytes, codec: str) -> bool:
    """Whether a byte stream is a picture that decoding can begin with; `ValueError` where it is not one whole picture."""
    if not data.startswith((_START, b"\0" + _START)):
        raise ValueError("a picture that does not begin here")
    slices = [unit for unit in units(data) if kind(unit, codec) in _SLICES[codec]]
    first = 2 if codec == "hevc" else 1
    if [len(unit) > first and unit[first] >= _FIRST for unit in slices] != [True] + [False] * (len(slices) - 1):
        raise ValueError("not one picture")
    return kind(slices[0], codec) in _KEYS[codec]


def record(parameters: Sequence[bytes], codec: str) -> bytes:
    """The configuration record of 8-bit 4:2:0 video with these parameter sets; `ValueError` where one kind is missing."""
    sets = [
        list(dict.fromkeys(unit for unit in parameters if kind(unit, codec) == wanted)) for wanted in PARAMETERS[codec]
    ]
    if not all(sets) or max(len(found) for found in sets) > 31:
        raise ValueError("a parameter set is missing")
    return _avc(*sets) if codec == "h264" else _hevc(sets)


def _avc(sequence: list[bytes], picture: list[bytes]) -> bytes:
    """AVCDecoderConfigurationRecord (14496-15, 5.3.3.1)."""
    first = sequence[0]
    if len(first) < 4:
        raise ValueError("a parameter set is cut off")
    more = bytes((0xFC | _420, 0xF8 | _8_BIT, 0xF8 | _8_BIT, 0)) if first[1] in _HIGH else b""
    return b"".join(
        (b"\1", first[1:4], b"\xff", bytes([0xE0 | len(sequence)]), *map(_counted, sequence), bytes([len(picture)]),
         *map(_counted, picture), more)
    )  # fmt: skip


def _hevc(sets: list[list[bytes]]) -> bytes:
    """HEVCDecoderConfigurationRecord (14496-15, 8.3.3.1); profile, tier and level out of the sequence parameter set."""
    said = sets[1][0].replace(b"\0\0\3", b"\0\0")[2:15]
    if len(said) < 13:
        raise ValueError("a parameter set is cut off")
    layers, nested = (said[0] >> 1 & 7) + 1, said[0] & 1
    head = (
        b"\1"
        + said[1:13]
        + struct.pack(">HBBBBHB", 0xF000, 0xFC, 0xFC | _420, 0xF8, 0xF8, 0, layers << 3 | nested << 2 | 3)
    )
    arrays = [
        bytes([0x80 | wanted]) + struct.pack(">H", len(found)) + b"".join(map(_counted, found))
        for wanted, found in zip(PARAMETERS["hevc"], sets, strict=True)
    ]
    return head + bytes([len(arrays)]) + b"".join(arrays)


def _counted(unit: bytes) -> bytes:
    return struct.pack(">H", len(unit)) + unit


def frame_length(data: bytes | bytearray, at: int) -> int:
    """Bytes of the ADTS frame that begins there; 0 where too few have come to tell. `ValueError` where none begins."""
    if len(data) - at < 7:
        return 0
    length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    if data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0 or length < 8:
        raise ValueError("not an ADTS frame")
    return length


def sampling_rate(frame: bytes) -> int:
    """Samples of sound a second, of an ADTS frame that `aac` takes."""
    return _HERTZ[frame[2] >> 2 & 15]


def aac(frame: bytes) -> tuple[bytes, bytes]:
    """The AudioSpecificConfig and the frame itself out of an ADTS frame (ISO/IEC 14496-3, 1.A.2.2).

    `ValueError` for anything that is not one frame of AAC-LC or AAC Main, with its channels told by number.
    """
    if len(frame) < 9 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
        raise ValueError("not an ADTS frame")
    kind, rate = (frame[2] >> 6) + 1, frame[2] >> 2 & 15
    channels = (frame[2] & 1) << 2 | frame[3] >> 6
    length = (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5
    if kind not in {_MAIN, _LC} or rate >= _RATES or not channels or frame[6] & 3 or length != len(frame):
        raise ValueError("not one plain frame of AAC")
    return bytes((kind << 3 | rate >> 1, (rate & 1) << 7 | channels << 3)), frame[7 if frame[1] & 1 else 9 :]
