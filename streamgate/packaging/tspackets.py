"""The packets of an MPEG-TS (ISO/IEC 13818-1, 2.4.3), of which more may follow: the payload of each of its tracks, piece by piece.

Strict: a file that was put together of several, of which packets are missing or which is encrypted is refused, not mended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamgate.packaging.mp4boxes import IndexRefused, Read

CLOCK = 90_000
"""Ticks in a second (ISO/IEC 13818-1, 2.4.3.7)."""

WRAPS = 1 << 33
"""Ticks after which the clock begins anew."""

PACKET = 188
_SYNC = 0x47
_FORMS = ((PACKET, 0), (192, 4), (204, 0))
"""Bytes from packet to packet, and before each: plain, as on Blu-ray, with parity."""

_TRIED = 6
MOST_HELD = 16 << 20
"""Bytes of one picture, or of one packet of sound, at most."""

Octets = NDArray[np.uint8]


def jumps() -> IndexRefused:
    """The file was put together of several, or time was lost in it."""
    return IndexRefused("table_mismatch", "The clock of the file jumps; every rendition is encoded.")


def _strange() -> IndexRefused:
    return IndexRefused("codec", "The packets of the file are of a kind that is not served as it is.")


def form(read: Read) -> tuple[int, int] | None:
    """How packets lie in a source of this kind: bytes from one to the next, and those before each; None for another kind."""
    head = read(0, 204 * _TRIED)
    for step, before in _FORMS:
        marks = head[before::step][:_TRIED]
        if len(marks) == _TRIED and set(marks) == {_SYNC}:
            return step, before
    return None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one PES packet holds. ``shown`` and ``decoded`` in ticks as they are written, which begin anew at `WRAPS`; None where
    they are not told."""

    shown: int | None
    decoded: int | None
    data: bytes


@dataclass(slots=True)
class Line:
    """The packets of one track. ``counter``: that of the last of them, -1 before the first; ``held``: what has come of a PES packet
    whose end has not."""

    counter: int = -1
    begun: bool = False
    held: bytearray = field(default_factory=bytearray)

    def take(self, packets: Octets, rows: NDArray[np.int64]) -> list[tuple[int, Piece]]:
        """The PES packets that these packets (rows of 188 bytes) complete, each with that of ``rows`` with which it was."""
        if bool(((packets[:, 1] & 0x80) | (packets[:, 3] & 0xC0)).any()):
            raise jumps()
        with_payload = (packets[:, 3] & 0x10) != 0
        packets, rows = packets[with_payload], rows[with_payload]
        if not len(packets):
            return []
        adapted = (packets[:, 3] & 0x20) != 0
        begins = np.where(adapted, packets[:, 4].astype(np.int64) + 5, 4)
        if int(begins.max()) > PACKET:
            raise _strange()
        self._count(packets, adapted)
        payload = packets[np.arange(PACKET) >= begins[:, None]].tobytes()
        ends = np.cumsum(PACKET - begins)
        found, at = [], 0
        for n in np.flatnonzero(packets[:, 1] & 0x40).tolist():
            start = int(ends[n - 1]) if n else 0
            self._hold(payload[at:start])
            if self.begun:
                found.append((int(rows[n]), parsed(self.held)))
            self.held, self.begun, at = bytearray(), True, start
        self._hold(payload[at:])
        return found

    def last(self) -> list[Piece]:
        """What is held, now that no more packets follow."""
        held, self.held, self.begun = self.held, bytearray(), False
        return [parsed(held)] if held else []

    def _count(self, packets: Octets, adapted: NDArray[np.bool_]) -> None:
        counters = (packets[:, 3] & 0x0F).astype(np.int64)
        before = np.append(self.counter, counters[:-1])
        told = adapted & (packets[:, 4] > 0) & ((packets[:, 5] & 0x80) != 0)
        if bool(((counters != (before + 1) % 16) & ~told & (before >= 0)).any()):
            raise jumps()
        self.counter = int(counters[-1])

    def _hold(self, more: bytes) -> None:
        if self.begun:
            self.held += more
            if len(self.held) > MOST_HELD:
                raise IndexRefused("big_segment", "A picture of the film is too large; every rendition is encoded.")


class Packets:
    """Sorts packets by the tracks that they belong to. ``lines`` by packet identifier; others are passed over."""

    def __init__(self, shape: tuple[int, int], lines: dict[int, Line]) -> None:
        self.step, self._before = shape
        self.lines = lines

    def take(self, data: bytes) -> Iterable[tuple[int, Piece]]:
        """(identifier, piece) of every PES packet that is complete with these packets, of which none is cut, in their order."""
        table = np.frombuffer(data, np.uint8).reshape(-1, self.step)[:, self._before : self._before + PACKET]
        if bool((table[:, 0] != _SYNC).any()):
            raise jumps()
        owners = (table[:, 1] & 0x1F).astype(np.int64) << 8 | table[:, 2]
        found: list[tuple[int, int, Piece]] = []
        for identifier, line in self.lines.items():
            rows = np.flatnonzero(owners == identifier)
            if len(rows):
                found += [(row, identifier, piece) for row, piece in line.take(table[rows], rows)]
        return [(identifier, piece) for _, identifier, piece in sorted(found, key=lambda one: one[0])]


def parsed(packet: bytes | bytearray) -> Piece:
    """A PES packet (2.4.3.6). Raises `IndexRefused` for one that is not whole, encrypted, or of another kind."""
    if len(packet) < 9 or packet[:3] != b"\0\0\1" or packet[6] & 0xF0 != 0x80:
        raise _strange()
    length = int.from_bytes(packet[4:6], "big")
    begin, end = 9 + packet[8], 6 + length if length else len(packet)
    if end > len(packet):
        raise jumps()
    stated = packet[7] >> 6
    if begin > end or stated == 1 or packet[8] < (0, 0, 5, 10)[stated]:
        raise _strange()
    shown = _time(packet, 9) if stated else None
    return Piece(shown, _time(packet, 14) if stated == 3 else shown, bytes(packet[begin:end]))


def _time(packet: bytes | bytearray, at: int) -> int:
    high, middle, low = (
        packet[at],
        int.from_bytes(packet[at + 1 : at + 3], "big"),
        int.from_bytes(packet[at + 3 : at + 5], "big"),
    )
    return (high >> 1 & 7) << 30 | middle >> 1 << 15 | low >> 1
