"""``make fuzz-index``: MP4, Matroska and MPEG-TS with something wrong in what says where samples are, thousands of times.

Each ends in a named refusal, or in a film whose every segment is whole: times that go on without a gap, key frames at the
beginnings, nothing but bytes of the source and no more of them than there are. Never in another error, and never slowly.
"""

from __future__ import annotations

import argparse
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from streamgate.media.model import Limits
from streamgate.media.opening import MAX_PIXELS, Source
from streamgate.media.probe import probe
from streamgate.media.remux import shapes
from streamgate.packaging.arriving import Arriving
from streamgate.packaging.growingtransport import GrowingCopy
from streamgate.packaging.matroskaindex import index_matroska
from streamgate.packaging.sampleindex import IndexedTrack, IndexRefused, Read, SourceIndex, index_mp4
from streamgate.packaging.segments import MAX_SEGMENT, StoredIndex, assemble
from streamgate.packaging.transport import Shape
from streamgate.packaging.tspackets import PACKET

Index = Callable[[Read, int], SourceIndex]

_MATROSKA = ("mkv", "webm")
LONGEST_S = 2.0
LARGEST_MIB = 1500
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_TABLES = (
    b"stsz stco stsc stts ctts stss elst mdhd tkhd mvhd stsd avcC hvcC esds hdlr dref trun tfhd tfdt trex mvex trak"
).split()
_ELEMENTS = [
    bytes.fromhex(identifier)
    for identifier in (
        *(
            "1a45dfa3",
            "18538067",
            "1549a966",
            "2ad7b1",
            "1654ae6b",
            "ae",
            "d7",
            "83",
            "86",
            "63a2",
            "e0",
            "e1",
            "b0",
            "56aa",
        ),
        *("23e383", "1f43b675", "e7", "a3", "a0", "a1", "fb"),
    )
]
_SOURCE = (
    *("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=12:duration=9"),
    *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=9", "-c:a", "aac", "-b:a", "32k"),
)
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "24")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:open-gop=0:keyint=24:pools=1")
SEEDS: dict[str, tuple[str, ...]] = {
    "last.mp4": _X264,
    "first.mp4": (*_X264, "-movflags", "+faststart"),
    "quicktime.mov": (*_X264, "-ar", "48000"),
    "signed.mp4": (*_X264, "-movflags", "+negative_cts_offsets"),
    "fragments.mp4": (*_X264, "-movflags", "+frag_keyframe+empty_moov"),
    "dash.mp4": (*_X264, "-movflags", "+dash+frag_keyframe+delay_moov"),
    "hevc.mp4": _X265,
    "simple.mkv": _X264,
    "small.mkv": (*_X264, "-cluster_time_limit", "100", "-shortest"),
    "live.mkv": (*_X264, "-live", "1"),
    "hevc.mkv": _X265,
    "opus.webm": ("-vf", "scale=64:64", "-c:v", "libsvtav1", "-preset", "12", "-g", "24", "-c:a", "libopus"),
    "plain.ts": _X264,
    "hevc.ts": _X265,
}
"""Name of a seed film → how the ffmpeg command line makes its picture."""


class NotWhole(AssertionError):
    """A film came out that is not one."""


def main() -> int:
    """Mutate and examine; 1 when something ended as it must not."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_index", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends, wrong, slowest = run(seeds(Path(folder)), arguments.count, arguments.seed)
    print(f"{arguments.count} mutations: " + ", ".join(f"{number} {end}" for end, number in ends.most_common()))
    print(f"slowest {slowest * 1000:.0f} ms, at most {_peak_mib()} MiB resident")
    for line in wrong:
        print(f"WRONG {line}")
    return 1 if wrong or _peak_mib() > LARGEST_MIB else 0


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """The films that are mutated."""
    made = []
    for name, coded in SEEDS.items():
        path = folder / name
        if not path.exists():
            command = [
                "ffmpeg",
                "-v",
                "error",
                "-y",
                *_SOURCE,
                *coded,
                "-threads",
                "1",
                "-pix_fmt",
                "yuv420p",
                str(path),
            ]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        made.append((name, path.read_bytes()))
    return made


def run(films: list[tuple[str, bytes]], count: int, seed: int) -> tuple[Counter[str], list[str], float]:
    """Examine ``count`` mutations: how they ended, a line for each that ended as it must not, and the longest time in seconds."""
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = 0.0
    for number in range(count):
        name, data = films[number % len(films)]
        chance = random.Random(seed * 1_000_003 + number)
        mutated = _mutated(name, data, chance)
        began = time.perf_counter()
        try:
            end = examine_film(name, mutated, data)
        except Exception as error:  # noqa: BLE001 (the point is to see everything)
            end = type(error).__name__
            wrong.append(f"{name} mutation {number} (seed {seed}): {type(error).__name__}: {error}")
        took = time.perf_counter() - began
        slowest = max(slowest, took)
        if took > LONGEST_S:
            wrong.append(f"{name} mutation {number} (seed {seed}): took {took:.1f} s")
        ends[end] += 1
    return ends, wrong, slowest


def _mutated(name: str, data: bytes, chance: random.Random) -> bytes:
    if name.endswith(".ts"):
        return mutate_transport(data, chance)
    return mutate_matroska(data, chance) if name.endswith(_MATROSKA) else mutate(data, chance)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four things wrong inside the boxes that say where samples are: numbers, bytes, pieces moved, ends too early."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = [at for kind in _TABLES if (at := _place(made, kind, chance)) >= 0]
        if not places:
            break
        at = chance.choice(places) + chance.choice((-4, -4, 0, 4, 8, 12, 16, chance.randrange(4, 600)))
        at = min(max(at, 0), len(made) - 4)
        kind = chance.randrange(6)
        if kind <= 2:
            struct.pack_into(
                ">I", made, at, chance.choice((*_NUMBERS, chance.randrange(1 << 32), chance.randrange(64)))
            )
        elif kind == 3:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 4:
            other = chance.choice(places)
            made[at : at + 16], made[other : other + 16] = made[other : other + 16], made[at : at + 16]
        else:
            length = chance.randrange(1, 64)
            made[at:at] = made[at : at + length]
            del made[at + length : at + 2 * length]
    if chance.random() < 0.05:
        del made[chance.randrange(len(made)) :]
    return bytes(made)


def _place(data: bytearray, kind: bytes, chance: random.Random) -> int:
    found = data.find(kind)
    return data.find(kind, found + 4) if found >= 0 and chance.random() < 0.4 else found


def mutate_matroska(data: bytes, chance: random.Random) -> bytes:
    """As `mutate`, by the elements of Matroska: identifiers, sizes, times, flags, and what tracks say of themselves."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        places = [
            at for kind in _ELEMENTS if (at := made.find(kind, chance.choice((0, 0, chance.randrange(len(made)))))) >= 0
        ]
        at = chance.choice(places) + chance.choice((-1, 0, 1, 1, 2, 3, 4, 5, 6, chance.randrange(40)))
        at = min(max(at, 0), len(made) - 8)
        kind = chance.randrange(6)
        if kind <= 1:
            made[at] = chance.choice((0, 1, 0x10, 0x40, 0x80, 0x81, 0xFF, chance.randrange(256)))
        elif kind == 2:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 3:
            made[at : at + 8] = b"\x01" + chance.choice(
                (b"\xff" * 7, bytes(7), b"\x7f" + bytes(6), bytes(3) + b"\xff" * 4)
            )
        elif kind == 4:
            other = chance.choice(places)
            made[at : at + 8], made[other : other + 8] = made[other : other + 8], made[at : at + 8]
        else:
            length = chance.randrange(1, 200)
            del made[at : at + length]
    if chance.random() < 0.05:
        del made[chance.randrange(len(made)) :]
    return bytes(made)


def mutate_transport(data: bytes, chance: random.Random) -> bytes:
    """As `mutate`, by packets: their headers, those of what begins in them, anything in them; packets that are missing or moved."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(made) // PACKET) * PACKET
        kind = chance.randrange(5)
        if kind <= 2:
            inside = chance.choice((chance.randrange(6), chance.randrange(40), chance.randrange(PACKET)))
            made[at + inside] = chance.choice(
                (0, 1, 0x47, 0x7F, 0x80, 0xFF, chance.randrange(256), made[at + inside] ^ 1)
            )
        elif kind == 3:
            del made[at : at + chance.choice((PACKET, 8 * PACKET, chance.randrange(1, 400)))]
        else:
            other = chance.randrange(len(made) // PACKET) * PACKET
            made[at : at + PACKET], made[other : other + PACKET] = made[other : other + PACKET], made[at : at + PACKET]
    if chance.random() < 0.05:
        del made[chance.randrange(PACKET, len(made)) :]
    return bytes(made)


def indexed_as(name: str) -> Index:
    """What reads a seed film of this name, which is no MPEG-TS."""
    return index_matroska if name.endswith(_MATROSKA) else index_mp4


def examine_film(name: str, data: bytes, original: bytes) -> str:
    """As `examine`, of what was made of the seed film ``original`` of this name."""
    return examine_transport(data, _shapes(original)) if name.endswith(".ts") else examine(data, indexed_as(name))


@lru_cache
def _shapes(original: bytes) -> tuple[Shape, ...]:
    with socket.socket() as unused:
        source = Source(0, None, unused).excerpt(original)
        found = probe(source, Limits())
        with source.open(MAX_PIXELS) as container:
            return tuple(shapes(container, found))


def examine_transport(data: bytes, tracks: tuple[Shape, ...]) -> str:
    """As `examine`, of an MPEG-TS with these tracks that arrives in three pieces; ``nothing`` where none of it is listed."""
    written, saved = bytearray(), b""

    def write(sample: bytes) -> int:
        written.extend(sample)
        return len(written) - len(sample)

    index = None
    try:
        for end in (len(data) // 2, len(data) * 3 // 4, len(data)):
            copy = GrowingCopy.resumed(saved, write) if saved else GrowingCopy((PACKET, 0), tracks, write, b"")
            copy.advance(Arriving(lambda offset, length: data[offset : offset + length], len(data), [(0, end)]))
            saved = copy.saved()
            index = copy.index(len(written), 4.0)
    except IndexRefused as refused:
        return _code(refused)
    if len(written) > 2 * len(data):
        raise NotWhole("more was written out than there is")
    return "nothing" if index is None else _whole(index, bytes(written))


def examine(data: bytes, index_of: Index = index_mp4) -> str:
    """``film``, or the code of the refusal; `NotWhole` for anything between the two."""

    def read(offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise NotWhole("read outside the source")
        return data[offset : offset + length]

    try:
        index = index_of(read, len(data))
    except IndexRefused as refused:
        return _code(refused)
    return _whole(index, data)


def _code(refused: IndexRefused) -> str:
    if not refused.detail.endswith("."):
        raise NotWhole("a refusal without a sentence") from refused
    return refused.code


def _whole(index: SourceIndex, data: bytes) -> str:
    """``film`` where every segment of it is whole."""

    def read(offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise NotWhole("read outside the source")
        return data[offset : offset + length]

    stored = StoredIndex.load(index.blob, len(data))
    tracks = [track for track in (index.video, *index.audio) if track is not None]
    if not tracks:
        raise NotWhole("a film without tracks")
    for track in tracks:
        layouts = [stored.segment(track.number, n) for n in range(len(track.boundaries) - 1)]
        if sum(length for layout in layouts for _, length in layout.ranges) > len(data):
            raise NotWhole("more bytes than the source has")
        if any(layout.length - len(layout.head) > MAX_SEGMENT for layout in layouts):
            raise NotWhole("a segment that is too large")
        _check(track, [(layout.head, assemble(layout, read)) for layout in layouts])
    return "film"


def _check(track: IndexedTrack, segments: list[tuple[bytes, bytes]]) -> None:
    """The heads say what was cut, sample by sample, and say it without gaps."""
    if any(end <= start for start, end in pairwise(track.boundaries)) or track.bandwidth <= 0:
        raise NotWhole("boundaries that do not ascend")
    expected: int | None = None
    frames = 0
    for head, whole in segments:
        decode_time, durations, sizes, first_flags = _head(head)
        if expected not in {None, decode_time}:
            raise NotWhole("a gap between segments")
        if len(head) + sum(sizes) != len(whole):
            raise NotWhole("samples and bytes differ")
        if min(durations) <= 0 or first_flags & 0x10000:
            raise NotWhole("a segment that begins with no key frame, or lasts no time")
        expected = decode_time + sum(durations)
        frames += len(sizes)
    if frames != track.frames or len(track.times) != frames:
        raise NotWhole("samples were lost")


def _head(head: bytes) -> tuple[int, list[int], list[int], int]:
    """Decoding time, durations, sizes, and the flags of the first sample, of a segment's head."""
    tfhd, tfdt, trun = (head.index(kind) + 4 for kind in (b"tfhd", b"tfdt", b"trun"))
    (decode_time,) = struct.unpack_from(">Q", head, tfdt + 4)
    flags, count = struct.unpack_from(">II", head, trun)
    if flags & 0x4:
        return _steady(head, decode_time, count, trun, tfhd)
    if flags & 0x100:
        rows = list(struct.iter_unpack(">4I", head[trun + 12 : trun + 12 + 16 * count]))
        if any(offset >= 1 << 31 for *_, offset in rows):
            raise NotWhole("a negative offset")
        return decode_time, [row[0] for row in rows], [row[1] for row in rows], rows[0][2]
    duration, sample_flags = struct.unpack_from(">II", head, tfhd + 8)
    return decode_time, [duration] * count, list(struct.unpack_from(f">{count}I", head, trun + 12)), sample_flags


def _steady(head: bytes, decode_time: int, count: int, trun: int, tfhd: int) -> tuple[int, list[int], list[int], int]:
    """As `_head`, of samples of one duration of which the first is a key frame."""
    duration, sample_flags = struct.unpack_from(">II", head, tfhd + 8)
    (first_flags,) = struct.unpack_from(">I", head, trun + 12)
    rows = list(struct.iter_unpack(">2I", head[trun + 16 : trun + 16 + 8 * count]))
    if any(offset >= 1 << 31 for _, offset in rows):
        raise NotWhole("a negative offset")
    if not sample_flags & 0x10000:
        raise NotWhole("a key frame inside a segment that has one")
    return decode_time, [duration] * count, [size for size, _ in rows], first_flags


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())
