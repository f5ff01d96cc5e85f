"""Elements of EBML (RFC 8794) that a stranger wrote: every length is checked, nothing is followed beyond what holds it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamgate.packaging.mp4boxes import IndexRefused

MAX_ELEMENTS = 4096
"""Most elements that one element in memory may hold."""

_LONGEST_ID = 4
_LONGEST_SIZE = 8


def damaged(what: str) -> IndexRefused:
    """An element that does not fit into what holds it, or says what it cannot."""
    return IndexRefused("box_size", f"The file's structure is damaged ({what}); every rendition is encoded.")


@dataclass(frozen=True, slots=True)
class Element:
    """An element: its identifier, marker and all (section 5), and its content."""

    identifier: int
    content: memoryview

    def unsigned(self) -> int:
        """Section 7.2: up to eight bytes; none is 0."""
        if len(self.content) > 8:
            raise damaged("a number is too long")
        return int.from_bytes(self.content, "big")

    def real(self) -> float:
        """Section 7.3: none, four or eight bytes."""
        form = {0: "", 4: ">f", 8: ">d"}.get(len(self.content))
        if form is None:
            raise damaged("a number is too long")
        return struct.unpack(form, self.content)[0] if form else 0.0

    def text(self) -> str:
        """Sections 7.4 and 7.5: up to the first zero byte."""
        return bytes(self.content).split(b"\0", 1)[0].decode("utf-8", "replace")


def identifier(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The identifier at an offset and its length in bytes; `IndexRefused` for one that is none or is cut off."""
    length = 9 - data[at].bit_length() if at < len(data) else 9
    if length > _LONGEST_ID or at + length > len(data):
        raise damaged("no element where one must be")
    return int.from_bytes(data[at : at + length], "big"), length


def size(data: bytes | memoryview, at: int) -> tuple[int | None, int]:
    """The size at an offset (None: unknown, section 6.2) and its length in bytes; `IndexRefused` for one that is none."""
    length = 9 - data[at].bit_length() if at < len(data) else 9
    if length > _LONGEST_SIZE or at + length > len(data):
        raise damaged("an element without a size")
    mask = (1 << 7 * length) - 1
    value = int.from_bytes(data[at : at + length], "big") & mask
    return (None if value == mask else value), length


def elements(content: memoryview) -> Iterator[Element]:
    """The elements that lie one behind the other in a content. `IndexRefused` when one of them does not fit."""
    at = 0
    for _ in range(MAX_ELEMENTS):
        if at == len(content):
            return
        found, length = identifier(content, at)
        at += length
        held, length = size(content, at)
        at += length
        if held is None or at + held > len(content):
            raise damaged("an element is longer than what holds it")
        yield Element(found, content[at : at + held])
        at += held
    raise damaged("too many elements")
