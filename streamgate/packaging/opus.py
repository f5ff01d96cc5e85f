"""Opus in MP4 (Encapsulation of Opus in ISO Base Media File Format, 0.8.3): its configuration, and how long packets last."""

from __future__ import annotations

import struct

import numpy as np

from streamgate.packaging import cmaf
from streamgate.packaging.sampletables import Numbers

RATE = 48_000
"""What every Opus decoder gives, and packets are counted in, samples a second."""

LONGEST = 5760
"""Samples of the longest packet (RFC 6716, section 3.2.5)."""

_SILK, _HYBRID, _CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)
_FRAMES = np.array([*_SILK * 3, *_HYBRID * 2, *_CELT * 4], np.int64)


def from_head(head: bytes) -> bytes:
    """The content of a ``dOps`` box out of an ``OpusHead`` (RFC 7845, section 5.1); `ValueError` for anything else."""
    if len(head) < 19 or head[:8] != b"OpusHead" or head[8] >> 4:
        raise ValueError("not an Opus header")
    channels, skipped, rate, gain, family = struct.unpack_from("<BHIhB", head, 9)
    content = struct.pack(">BBHIhB", 0, channels, skipped, rate, gain, family) + (head[19:] if family else b"")
    return checked(content)


def checked(content: bytes) -> bytes:
    """The content of a ``dOps`` box without what is behind it; `ValueError` for one that no decoder takes."""
    if len(content) < 11 or content[0]:
        raise ValueError("not an Opus configuration")
    channels, family = content[1], content[10]
    length = 13 + channels if family else 11
    if not 1 <= channels <= (8 if family else 2) or family not in {0, 1} or len(content) < length:
        raise ValueError("not an Opus configuration")
    return content[:length]


def entry(content: bytes, hidden: int) -> bytes:
    """The sample entry: a ``dOps`` content, with ``hidden`` as the samples that are not heard of what is served."""
    channels = content[1]
    fields = struct.pack(">6xH8xHHHHI", 1, channels, 16, 0, 0, RATE << 16)
    return cmaf.box(b"Opus", fields, cmaf.box(b"dOps", content[:2], struct.pack(">H", hidden), content[4:]))


def durations(first: Numbers, second: Numbers, sizes: Numbers) -> Numbers:
    """Samples of packets (RFC 6716, section 3.1) by their first two bytes; 0 where they are none."""
    code = first & 3
    many = np.where(sizes > 1, second & 0x3F, 0)
    counts = np.where(code == 0, 1, np.where(code < 3, 2, many))
    lasting = _FRAMES[first >> 3] * counts
    found: Numbers = np.where(lasting > LONGEST, 0, lasting)
    return found
