"""Where the index of an MP4 or MOV lies, for those who upload it.

A film that has it at its end plays while it is uploaded when that is sent first.
"""

from __future__ import annotations

import struct
from pathlib import Path

MOST = 64 << 20
"""Bytes at the end of a file that a server takes ahead of the rest."""

LEAST = 1 << 20
"""Bytes of media below which nothing is gained."""

_MAX_BOXES = 4096


def index_at_end(path: Path) -> int | None:
    """The offset of the ``moov`` that stands behind the media (ISO/IEC 14496-12, 4.2), where at most `MOST` bytes are left and at
    least `LEAST` come before it.

    None for a film whose index comes first, for one whose boxes cannot be told apart without reading it all, and for any other
    file.
    """
    size = path.stat().st_size
    at, media = 0, False
    with path.open("rb") as file:
        for _ in range(_MAX_BOXES):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return None
            length, kind = struct.unpack_from(">I4s", head)
            if length == 1 and len(head) == 16:
                (length,) = struct.unpack_from(">Q", head, 8)
            if kind == b"moov":
                return at if media and at >= LEAST and size - at <= MOST else None
            if length < 8:
                return None
            media = media or kind == b"mdat"
            at += length
    return None
