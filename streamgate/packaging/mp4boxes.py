"""Reading boxes of an MP4 or MOV (ISO/IEC 14496-12, 4.2) that a stranger made: every length is checked, nothing is followed
beyond what holds it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

MAX_MOOV = 256 << 20
"""Largest ``moov`` in bytes that is read."""

MAX_BOXES = 4096
"""Most boxes that one box (or the file) may hold."""

MAX_OUTER_BOXES = 1 << 18
"""Most boxes that a file may be made of: one or two for each fragment."""

Read = Callable[[int, int], bytes]
"""``(offset, length)`` → those bytes of the source, fewer only at its end."""


@runtime_checkable
class ReadMany(Protocol):
    """A `Read` of a source that is far away, which gives several ranges for one round trip."""

    def __call__(self, offset: int, length: int, /) -> bytes: ...

    def many(self, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        """Those ranges, (offset, length) each; all of them lie inside the source."""
        ...


class IndexRefused(Exception):
    """The index of a source cannot be used. ``code`` is stable; ``detail`` is a sentence for the owner of the film.

    Codes: ``no_moov box_size table_short table_mismatch too_many_samples too_long truncated codec no_config
    stsd_entries external_data encrypted multi_edit edit_rate edit_preroll no_keyframes long_gop big_segment signed_offsets``.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def damaged(what: str) -> IndexRefused:
    """A box that does not fit into what holds it."""
    return IndexRefused("box_size", f"The file's index is damaged ({what}); every rendition is encoded.")


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its kind, and its content without the header."""

    kind: bytes
    content: memoryview


def boxes(content: memoryview) -> Iterator[Box]:
    """The boxes that lie one behind the other in a content. `IndexRefused` when one of them does not fit."""
    at, count = 0, 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        head = 8
        if size == 1:
            if at + 16 > len(content):
                raise damaged(_name(kind))
            (size,) = struct.unpack_from(">Q", content, at + 8)
            head = 16
        elif size == 0:
            size = len(content) - at
        if size < head or at + size > len(content):
            raise damaged(_name(kind))
        yield Box(kind, content[at + head : at + size])
        at += size
        count += 1
        if count > MAX_BOXES:
            raise damaged("too many boxes")


def first(content: memoryview, *path: bytes) -> memoryview | None:
    """The content of the first box of a path, such as ``mdia``, ``mdhd``; None where a step is missing."""
    found: memoryview | None = content
    for kind in path:
        assert found is not None
        found = next((box.content for box in boxes(found) if box.kind == kind), None)
        if found is None:
            return None
    return found


def needed(content: memoryview, *path: bytes) -> memoryview:
    """As `first`; `IndexRefused` where it is missing."""
    found = first(content, *path)
    if found is None:
        raise damaged(f"no {_name(path[-1])}")
    return found


def unpack(form: str, content: memoryview, at: int) -> tuple[int, ...]:
    """Numbers at an offset; `IndexRefused` beyond the end."""
    try:
        return struct.unpack_from(form, content, at)
    except struct.error:
        raise damaged("a box is too short") from None


def version(content: memoryview) -> int:
    """The version of a full box."""
    return unpack(">B", content, 0)[0]


@dataclass(frozen=True, slots=True)
class Movie:
    """The content of a file's one ``moov``, and where each ``moof`` behind it lies: (offset, length), header and all."""

    content: memoryview
    fragments: tuple[tuple[int, int], ...]


def movie(read: Read, size: int) -> Movie:
    """Find a file's ``moov``, wherever it lies, and its fragments. Reads headers, and the ``moov`` itself."""
    found: list[tuple[int, int]] = []
    fragments: list[tuple[int, int]] = []
    for kind, offset, head, length in _outer(read, size):
        if kind == b"moov":
            found.append((offset + head, length - head))
        elif kind == b"moof" and offset + length <= size:
            fragments.append((offset, length))
    if not found:
        raise IndexRefused("no_moov", "The file has no index (moov); it was probably cut off.")
    if len(found) > 1:
        raise damaged("two moov boxes")
    ((offset, length),) = found
    if length > MAX_MOOV or offset + length > size:
        raise damaged("moov")
    content = read(offset, length)
    if len(content) != length:
        raise damaged("moov")
    return Movie(memoryview(content), tuple(fragments))


def fetch_movie(read: Read, size: int) -> None:
    """Read a file's ``moov`` once, for a reader that keeps what it has read; nothing where it has none before its fragments."""
    for kind, offset, head, length in _outer(read, size):
        if kind == b"moov" and length <= MAX_MOOV and offset + length <= size:
            read(offset + head, length - head)
        if kind in {b"moov", b"moof"}:
            return


def _outer(read: Read, size: int) -> Iterator[tuple[bytes, int, int, int]]:
    """The boxes that a file itself is made of: kind, offset, length of the header, length of it all."""
    at = 0
    for _ in range(MAX_OUTER_BOXES):
        if at + 8 > size:
            return
        head = read(at, 16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        start = 8
        if length == 1 and len(head) == 16:
            (length,), start = struct.unpack_from(">Q", head, 8), 16
        elif length == 0:
            length = size - at
        if length < start:
            raise damaged(_name(kind))
        yield kind, at, start, length
        at += length
    raise damaged("too many boxes")


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace") if kind.isalnum() else "a box"
