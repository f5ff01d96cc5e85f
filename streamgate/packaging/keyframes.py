"""Which of the samples that a table calls key frames are: by what the first picture in each is coded as, for tables lie.

H.264 (ISO/IEC 14496-10, table 7-1), HEVC (23008-2, table 7-1), AV1 (AV1 bitstream, 5.9.2). Only the beginnings of samples are read.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamgate.packaging.arriving import Arriving
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.sampletables import Flags, Samples

MANY = 8000
"""Claimed key frames up to which every one is looked at; of more, only those that segments are to begin with."""

_HEAD = 96
_LARGEST_HEAD = 16 << 10
_LOOKED_AT = 24

IsKey = Callable[[int], bool]
"""Whether a sample (its number) is a key frame."""


def looking(read: Read, samples: Samples, codec: str, config: bytes) -> IsKey:
    """Looks at samples, each once. Of a source that still arrives, those are believed that are not there yet.

    Raises `IndexRefused` for such a source when it claims nothing that could be believed.
    """
    judge, unit = _judge(codec, config)
    known: dict[int, bool] = {}
    arriving = read if isinstance(read, Arriving) else None
    if arriving is not None and not samples.stated:
        raise IndexRefused("no_keyframes", "The file does not say which of its pictures are key frames.")

    def look(number: int) -> bool:
        if number not in known:
            offset, size = int(samples.offsets[number]), int(samples.sizes[number])
            believed = arriving.known(offset, size) if arriving is not None else None
            known[number] = _is_key(read, offset, size, judge, unit) if believed is None else believed
            if arriving is not None and believed is None:
                arriving.found(offset, key=known[number])
        return known[number]

    return look


def verified(samples: Samples, look: IsKey, *, far: bool) -> tuple[Flags, bool]:
    """The claimed key frames that are some, as far as they were worth looking at (`MANY`); and whether no more need be looked at.

    A track without a table of key frames says that every sample is one; a few tell whether that is so. Where each look costs a
    round trip (``far``), a few tell of every track whether its table can be believed; when one of them is none, all are looked at.
    """
    claimed = np.flatnonzero(samples.keys)
    few = claimed[np.linspace(0, max(0, len(claimed) - 1), min(len(claimed), _LOOKED_AT)).astype(np.int64)]
    if far and all(look(int(number)) for number in few):
        return samples.keys, True
    if len(claimed) > MANY:
        if not samples.stated and not all(look(int(number)) for number in few):
            return np.zeros(len(samples), np.bool_), True
        return samples.keys, False
    keys = np.zeros(len(samples), np.bool_)
    keys[[int(number) for number in claimed if look(int(number))]] = True
    return keys, True


def closed(samples: Samples, keys: Flags) -> Flags:
    """Those key frames at which a group begins that needs nothing before it: all before are shown before, all after later."""
    shown = samples.shown
    before = np.append(np.iinfo(np.int64).min, np.maximum.accumulate(shown)[:-1])
    after = np.minimum.accumulate(shown[::-1])[::-1]
    found: Flags = keys & (before < shown) & (after == shown)
    return found


Judge = Callable[[bytes], bool | None]
"""The first bytes of a unit → whether it begins a key frame; None: not a picture, look at the next unit."""


def _judge(codec: str, config: bytes) -> tuple[Judge, int]:
    """How a unit of this coding is judged, and the bytes of a unit's length field (0: units tell their length themselves)."""
    if codec.startswith("avc"):
        return _avc, (config[4] & 3) + 1
    if codec.startswith(("hvc1", "hev1")):
        return _hevc, (config[21] & 3) + 1
    return _av1, 0


def _avc(unit: bytes) -> bool | None:
    kind = unit[0] & 0x1F
    return kind == 5 if 1 <= kind <= 5 else None


def _hevc(unit: bytes) -> bool | None:
    kind = unit[0] >> 1 & 0x3F
    return 16 <= kind <= 21 if kind < 32 else None


def _av1(unit: bytes) -> bool | None:
    kind, extended, sized = unit[0] >> 3 & 15, unit[0] & 4, unit[0] & 2
    if kind not in {3, 6}:
        return None
    at = 1 + bool(extended)
    if sized:
        while at < len(unit) and unit[at] & 0x80:
            at += 1
        at += 1
    return at < len(unit) and not unit[at] & 0x80 and unit[at] >> 5 & 3 == 0


def _is_key(read: Read, offset: int, size: int, judge: Judge, unit: int) -> bool:
    data = read(offset, min(size, _HEAD))
    at = 0
    while at < size:
        if at + unit + 12 > len(data) and len(data) < min(size, at + unit + 12):
            if at + unit + 12 > _LARGEST_HEAD:
                return False
            data = read(offset, min(size, at + unit + _HEAD))
        head = data[at + unit : at + unit + 12]
        if not head:
            return False
        found = judge(head)
        if found is not None:
            return found
        length = int.from_bytes(data[at : at + unit], "big") if unit else _obu_length(head)
        if length <= 0:
            return False
        at += unit + length
    return False


def _obu_length(head: bytes) -> int:
    """Bytes of a whole OBU; 0 where it does not say."""
    at = 1 + bool(head[0] & 4)
    if not head[0] & 2:
        return 0
    length = shift = 0
    for byte in head[at : at + 8]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return at + length
    return 0
