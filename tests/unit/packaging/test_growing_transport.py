"""Sound in pieces that end anywhere in its frames: the samples and their times are those of the frames."""

from __future__ import annotations

import random

import pytest

from streamgate.packaging.arriving import Arriving
from streamgate.packaging.growingtransport import GrowingCopy
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.segments import StoredIndex, assemble
from streamgate.packaging.transport import Shape
from streamgate.packaging.tspackets import CLOCK, PACKET, WRAPS
from tests.unit.packaging.test_transport_packets import PID, packet, pes

RATE = 48_000
TICKS = 1024 * CLOCK // RATE
FRAMES = 900
BEGIN = WRAPS - 5 * CLOCK
SOUND = Shape(0, PID, None, "aac")


def frame(number: int, chance: random.Random) -> bytes:
    """One of AAC-LC in stereo at 48 kHz, of a length of its own."""
    body = bytes([number & 0xFF]) * chance.randrange(8, 400)
    length = len(body) + 7
    return bytes([0xFF, 0xF1, 0x4C, 0x80 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F, 0xFC]) + body


def in_packets(pieces: list[bytes]) -> bytes:
    made, counter = [], 0
    for piece in pieces:
        for at in range(0, len(piece), PACKET - 4):
            made.append(packet(counter, piece[at : at + PACKET - 4], begins=at == 0))
            counter += 1
    return b"".join(made)


def stream(frames: list[bytes], chance: random.Random) -> bytes:
    """Frames cut into pieces of any length, each with the time of the first frame that begins in it, if one does."""
    whole = b"".join(frames)
    starts, at = [], 0
    for one in frames:
        starts.append(at)
        at += len(one)
    pieces, begin = [], 0
    while begin < len(whole):
        end = begin + chance.choice((3, 50, 700, 2000, 5000))
        first = next((n for n, start in enumerate(starts) if begin <= start < end), None)
        data = whole[begin:end]
        time = (BEGIN + (first or 0) * TICKS) % WRAPS
        pieces.append(pes(data, time) if first is not None else pes(b"", 0)[:7] + b"\0\0" + data)
        begin = end
    return in_packets([*pieces, pes(b"")])


def copied(data: bytes, ends: list[int]) -> tuple[bytes, GrowingCopy]:
    written, saved = bytearray(), b""

    def write(sample: bytes) -> int:
        written.extend(sample)
        return len(written) - len(sample)

    for end in ends:
        copy = GrowingCopy.resumed(saved, write) if saved else GrowingCopy((PACKET, 0), [SOUND], write, b"")
        assert copy.advance(Arriving(lambda offset, length: data[offset : offset + length], len(data), [(0, end)]))
        saved = copy.saved()
    return bytes(written), copy


@pytest.mark.parametrize("seed", range(4))
def test_frames_of_sound_may_lie_in_several_pieces(seed: int) -> None:
    chance = random.Random(seed)
    frames = [frame(n, chance) for n in range(FRAMES)]
    data = stream(frames, chance)
    ends = sorted(chance.randrange(10 * PACKET, len(data)) for _ in range(20))
    written, copy = copied(data, [*ends, len(data)])
    assert written == b"".join(one[7:] for one in frames)
    index = copy.index(len(written), 1.0)
    assert index is not None
    (track,) = index.audio
    assert track.times.tolist() == [n * 1024 for n in range(FRAMES)]
    stored = StoredIndex.load(index.blob, len(written))
    served = [assemble(stored.segment(0, n), lambda at, length: written[at : at + length]) for n in range(3)]
    assert all(len(segment) > 1000 for segment in served)


def test_sound_that_does_not_begin_with_a_frame_is_refused() -> None:
    chance = random.Random(1)
    data = in_packets([pes(frame(0, chance)[1:], BEGIN), pes(b"")])
    with pytest.raises(IndexRefused) as refused:
        copied(data, [len(data)])
    assert refused.value.code == "codec"
