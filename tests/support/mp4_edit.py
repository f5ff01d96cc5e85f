"""Changing an MP4 box by box: what no muxer writes, for tests of what reads it."""

from __future__ import annotations

import struct
from collections.abc import Callable

CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"edts", b"dinf", b"moof", b"traf"}

Change = Callable[[bytes], bytes]
"""The payload of a box → the whole box that takes its place (or boxes, or nothing)."""


def box(kind: bytes, payload: bytes) -> bytes:
    """A box with a header of 32 bits."""
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def long_box(kind: bytes, payload: bytes) -> bytes:
    """A box with a header of 64 bits."""
    return struct.pack(">I4sQ", 1, kind, 16 + len(payload)) + payload


def changed(data: bytes, kind: bytes, change: Change, *, which: int | None = None) -> bytes:
    """The file with every box of a kind (or only the one numbered ``which``) replaced. Its media must stand before what changes."""
    seen = 0

    def walk(content: bytes) -> bytes:
        nonlocal seen
        made, at = [], 0
        while at + 8 <= len(content):
            size, found = struct.unpack_from(">I4s", content, at)
            size = size or len(content) - at
            payload = content[at + 8 : at + size]
            if found == kind:
                made.append(change(payload) if which in {None, seen} else content[at : at + size])
                seen += 1
            elif found in CONTAINERS:
                made.append(box(found, walk(payload)))
            else:
                made.append(content[at : at + size])
            at += size
        return b"".join((*made, content[at:]))

    made = walk(data)
    assert seen, f"no {kind!r} to change"
    return made


def same(kind: bytes, edit: Callable[[bytearray], object]) -> Change:
    """A change of some bytes of a payload."""

    def change(payload: bytes) -> bytes:
        made = bytearray(payload)
        edit(made)
        return box(kind, bytes(made))

    return change


def as_co64(payload: bytes) -> bytes:
    """An ``stco`` as the ``co64`` that says the same."""
    (count,) = struct.unpack_from(">I", payload, 4)
    offsets = struct.unpack_from(f">{count}I", payload, 8)
    return box(b"co64", payload[:8] + struct.pack(f">{count}Q", *offsets))
