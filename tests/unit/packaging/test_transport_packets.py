"""Packets of a transport stream: what they carry comes out whole and in order, and what is not simple is refused by its name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamgate.packaging import tspackets
from streamgate.packaging.annexb import frame_length, key_picture
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.tspackets import PACKET, Line, Packets, Piece, form, parsed

PID = 256


def packet(
    counter: int, payload: bytes, *, begins: bool = False, pid: int = PID, flags: int = 0, jump: bool = False
) -> bytes:
    """A packet of 188 bytes that is filled up in front of its payload, as muxers do."""
    room = PACKET - 4 - len(payload)
    stuffing = b"" if not room else bytes([room - 1, 0x80 if jump else 0, *[0xFF] * (room - 2)])[:room]
    head = [0x47, flags | begins << 6 | pid >> 8, pid & 0xFF, (0x30 if room else 0x10) | counter % 16]
    return bytes(head) + stuffing + payload


def pes(data: bytes, shown: int = 900, decoded: int | None = None, length: int = 0) -> bytes:
    def stamp(mark: int, time: int) -> bytes:
        low, middle = time & 0x7FFF, time >> 15 & 0x7FFF
        return bytes([mark << 4 | time >> 30 << 1 | 1]) + (middle << 17 | 1 << 16 | low << 1 | 1).to_bytes(4, "big")

    times = stamp(2, shown) if decoded is None else stamp(3, shown) + stamp(1, decoded)
    flags = 0x80 if decoded is None else 0xC0
    return b"\0\0\1\xe0" + length.to_bytes(2, "big") + bytes([0x80, flags, len(times)]) + times + data


def taken(*packets: bytes, shape: tuple[int, int] = (PACKET, 0)) -> list[tuple[int, Piece]]:
    return list(Packets(shape, {PID: Line()}).take(b"".join(packets)))


def test_what_packets_carry_is_put_together_whatever_lies_between() -> None:
    whole = bytes(range(200))
    start = pes(whole, (1 << 33) - 1, 1 << 32)
    packets = [
        packet(14, start[:100], begins=True),
        packet(0, b"other", pid=17, begins=True),
        packet(15, start[100:]),
        packet(16, pes(b"next"), begins=True),
    ]
    assert taken(*packets) == [(PID, Piece((1 << 33) - 1, 1 << 32, whole))]
    lines = {PID: Line()}
    one_by_one = [found for one in packets for found in Packets((PACKET, 0), lines).take(one)]
    assert one_by_one == taken(*packets)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 16)])
def test_packets_lie_as_on_discs_or_with_parity_too(before: int, after: int) -> None:
    packets = [packet(n, pes(bytes([n])), begins=True) for n in range(8)]
    data = b"".join(bytes([0x47] * before) + one + bytes([0x47] * after) for one in packets)
    shape = form(lambda offset, length: data[offset : offset + length])
    assert shape == (PACKET + before + after, before)
    assert [piece.data for _, piece in taken(data, shape=shape)] == [bytes([n]) for n in range(7)]
    assert form(lambda offset, length: b"\1" * 5 + data[offset : offset + length]) is None


def test_a_jump_that_is_announced_is_none() -> None:
    packets = [packet(3, pes(b"a"), begins=True), packet(9, b"b", jump=True), packet(10, pes(b""), begins=True)]
    assert [piece.data for _, piece in taken(*packets)] == [b"ab"]


FIRST = packet(3, pes(b"a"), begins=True)
REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "a packet is missing": ("table_mismatch", lambda: taken(FIRST, packet(5, b"b"))),
    "a packet comes twice": ("table_mismatch", lambda: taken(FIRST, FIRST)),
    "a packet is damaged": ("table_mismatch", lambda: taken(packet(3, b"", flags=0x80))),
    "a packet is encrypted": ("table_mismatch", lambda: taken(FIRST[:3] + bytes([FIRST[3] | 0xC0]) + FIRST[4:])),
    "packets do not lie where they should": ("table_mismatch", lambda: taken(FIRST, b"\0" + FIRST[:-1])),
    "what is in front of the payload is too long": (
        "codec",
        lambda: taken(FIRST[:4] + b"\xff" + FIRST[5:]),
    ),
    "a piece is cut off": (
        "table_mismatch",
        lambda: taken(packet(3, pes(b"a", length=100), begins=True), packet(4, pes(b""), begins=True)),
    ),
    "a piece has no beginning": ("codec", lambda: taken(packet(3, b"abc", begins=True), packet(4, b"", begins=True))),
    "a piece is encrypted": ("codec", lambda: parsed(pes(b"a")[:6] + b"\x90" + pes(b"a")[7:])),
    "a piece has times that are not there": ("codec", lambda: parsed(pes(b"a")[:7] + b"\xc0" + pes(b"a")[8:])),
    "a piece is shorter than its header": ("codec", lambda: parsed(pes(b"")[:8] + b"\xff" + pes(b"")[9:])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_simple_is_refused(name: str) -> None:
    code, take = REFUSED[name]
    with pytest.raises(IndexRefused) as refused:
        take()
    assert refused.value.code == code


def test_a_picture_without_an_end_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tspackets, "MOST_HELD", 1000)
    with pytest.raises(IndexRefused) as refused:
        taken(packet(0, pes(b""), begins=True), *(packet(n, bytes(184)) for n in range(1, 9)))
    assert refused.value.code == "big_segment"


SLICE, IDR, MORE = b"\0\0\1\x41\x9a", b"\0\0\1\x65\x88", b"\0\0\1\x65\x40"


def test_one_picture_is_told_from_others() -> None:
    assert key_picture(b"\0" + IDR + MORE, "h264")
    assert not key_picture(SLICE, "h264")
    assert key_picture(b"\0\0\1\x46\1\x10" + b"\0\0\1\x26\1\xaf", "hevc")
    assert not key_picture(b"\0\0\1\2\1\xd0", "hevc")
    for data in (b"", b"abc" + IDR, IDR + IDR, MORE, MORE + IDR, b"\0\0\1\x09\x10", b"\0\0\1\x65"):
        with pytest.raises(ValueError, match="picture"):
            key_picture(data, "h264")


def test_where_a_frame_of_sound_ends() -> None:
    frame = bytes.fromhex("fff1508002fffc") + bytes(16)
    assert frame_length(frame, 0) == 23
    assert frame_length(frame[:6], 0) == 0
    for data in (frame[1:], frame[:3] + bytes(20)):
        with pytest.raises(ValueError, match="ADTS"):
            frame_length(data, 0)
