"""Several frames in one block of Matroska (RFC 9559, section 10.3)."""

from __future__ import annotations

from streamgate.packaging import ebml
from streamgate.packaging.ebml import damaged
from streamgate.packaging.mp4boxes import Read

XIPH, FIXED, EBML = 0x02, 0x04, 0x06

_LONGEST_HEAD = 64 << 10


def laced(read: Read, start: int, size: int, kind: int) -> tuple[int, list[int]]:
    """Where the first frame of a lace begins, and the size of each; `IndexRefused` when they do not fill it.

    ``start`` and ``size``: of what lies behind the block's flags; ``kind``: its lacing flags.
    """
    head = read(start, min(size, _LONGEST_HEAD))
    if not head:
        raise damaged("a lace without frames")
    count = head[0] + 1
    if kind == FIXED:
        if (size - 1) % count or size == 1:
            raise damaged("a lace whose frames are not of one size")
        return start + 1, [(size - 1) // count] * count
    at, sizes = (_xiph if kind == XIPH else _ebml)(head, count)
    sizes.append(size - at - sum(sizes))
    if min(sizes) <= 0:
        raise damaged("a lace that is shorter than its frames")
    return start + at, sizes


def _xiph(head: bytes, count: int) -> tuple[int, list[int]]:
    """Section 10.3.2: bytes that are added up until one is less than 255; the last frame has the rest."""
    at, sizes = 1, []
    for _ in range(count - 1):
        size = 0
        while True:
            if at >= len(head):
                raise damaged("a lace that is cut off")
            size += head[at]
            at += 1
            if head[at - 1] < 255:
                break
        sizes.append(size)
    return at, sizes


def _ebml(head: bytes, count: int) -> tuple[int, list[int]]:
    """Section 10.3.3: the first size as such, the others as differences; the last frame has the rest."""
    at, sizes = 1, list[int]()
    for number in range(count - 1):
        value, length = ebml.size(head, at)
        if value is None:
            raise damaged("a lace without sizes")
        at += length
        sizes.append(value if number == 0 else sizes[-1] + value - ((1 << 7 * length - 1) - 1))
    return at, sizes
