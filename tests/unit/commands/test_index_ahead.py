"""Which files have an index that is worth sending first, and from where on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from streamgate.indexahead import LEAST, index_at_end


def box(kind: bytes, length: int) -> bytes:
    return struct.pack(">I4s", length, kind) + bytes(length - 8)


def long_box(kind: bytes, length: int) -> bytes:
    return struct.pack(">I4sQ", 1, kind, length) + bytes(length - 16)


START, MEDIA, INDEX = box(b"ftyp", 32), box(b"mdat", LEAST), box(b"moov", 500)

FILES: dict[str, tuple[bytes, int | None]] = {
    "behind the media": (START + MEDIA + INDEX, 32 + LEAST),
    "behind media of 64-bit length": (START + long_box(b"mdat", LEAST) + INDEX, 32 + LEAST),
    "behind several": (START + box(b"wide", 8) + MEDIA + MEDIA + INDEX + box(b"free", 90), 40 + 2 * LEAST),
    "first": (START + INDEX + MEDIA, None),
    "behind little": (START + box(b"mdat", 1000) + INDEX, None),
    "nowhere": (START + MEDIA, None),
    "behind media that never end": (START + struct.pack(">I4s", 0, b"mdat") + bytes(LEAST) + INDEX, None),
    "too large": (START + MEDIA + struct.pack(">I4sQ", 1, b"moov", 65 << 20), None),
    "cut off": (START + MEDIA + INDEX[:5], None),
    "no boxes": (bytes(LEAST + 100), None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("name", FILES)
def test_where_an_index_lies(tmp_path: Path, name: str) -> None:
    content, offset = FILES[name]
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    if name == "too large":
        with path.open("r+b") as file:
            file.truncate(len(content) + (65 << 20))
    assert index_at_end(path) == offset
