"""Just enough of ISO/IEC 14496-12 to tell a film that was cut off from one that is damaged, without a media library."""

from __future__ import annotations

import io
import struct

_TOP_LEVEL = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp", b"moof", b"sidx")
)
_MAX_BOXES = 4096


def missing_index(raw: io.RawIOBase | io.BytesIO, size: int) -> bool | None:
    """True: an MP4/MOV file whose last box runs past the end before any ``moov`` was whole; False: another MP4/MOV; None: none.

    ``size`` is the length of the file in bytes; at most a few thousand box headers are read.
    """
    at = 0
    for _ in range(_MAX_BOXES):
        if at >= size:
            return at > 0
        raw.seek(at)
        header = raw.read(16) or b""
        if len(header) < 8:
            return True if at else None
        length, kind = struct.unpack(">I4s", header[:8])
        if at == 0 and kind not in _TOP_LEVEL:
            return None
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        elif length == 0:
            length = size - at
        if length < 8:
            return False
        if at + length > size:
            return True
        if kind == b"moov":
            return False
        at += length
    return False
