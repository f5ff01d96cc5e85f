"""``make fuzz``: small films with something wrong in them, thousands of times, through looking, planning and encoding.

Each ends as a film or as a refusal with a code of the closed list; never as a crash of this process, a hang, or a defect.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.media.model import LadderSettings, Limits
from streamgate.media.sandbox import Sandbox

LADDER = LadderSettings(rungs=(120,), preset="ultrafast")
LIMITS = Limits(max_pixels=1 << 22)
PLAN_S, ENCODE_S = 20.0, 30.0
SEEDS: dict[str, tuple[str, ...]] = {
    "mp4": ("-c:v", "libx264", "-bf", "2", "-c:a", "aac"),
    "mov": ("-c:v", "libx264", "-c:a", "pcm_s16le", "-movflags", "+faststart"),
    "mkv": ("-c:v", "libx264", "-c:a", "flac"),
    "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"),
    "ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "flv": ("-c:v", "flv", "-c:a", "mp3", "-ar", "44100"),
    "fmp4": ("-c:v", "libx264", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-f", "mp4"),
}
"""Name of a seed film → how the ffmpeg command line makes it."""

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Bytes:
    """A mutated film as a source of the sandbox: a file that a child opens."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.size = path.stat().st_size

    async def read(self, offset: int, length: int) -> bytes:
        """Never asked for."""
        raise NotImplementedError


def main() -> int:
    """Mutate and examine; 1 when something ended as it must not."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends, wrong = asyncio.run(run(Path(folder), arguments.count, arguments.seed, said=print))
    print(f"{arguments.count} mutations: " + ", ".join(f"{number} {end}" for end, number in ends.most_common()))
    for line in wrong:
        print(f"WRONG {line}")
    return 1 if wrong else 0


async def run(
    folder: Path, count: int, seed: int, *, said: Callable[[str], object] = lambda _: None, encode_every: int = 4
) -> tuple[Counter[str], list[str]]:
    """Examine ``count`` mutations, two at a time; how they ended, and a line for each that ended as it must not."""
    films = [(name, _film(folder, name).read_bytes()) for name in SEEDS]
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    numbers = iter(range(count))

    async def worker(sandbox: Sandbox) -> None:
        for number in numbers:
            chance = random.Random(seed * 1_000_003 + number)
            name, data = films[number % len(films)]
            path, out = folder / f"mutated-{number}", folder / f"out-{number}"
            out.mkdir()
            path.write_bytes(mutate(data, chance))
            began = time.monotonic()
            try:
                end = await _examine(sandbox, path, out, encode=number % encode_every == 0)
            except Exception as error:  # noqa: BLE001 (the point is to see everything)
                end = f"{type(error).__name__}"
                wrong.append(f"{name} mutation {number} (seed {seed}): {type(error).__name__}: {error}")
            if end == FailureCode.INTERNAL.value:
                wrong.append(f"{name} mutation {number} (seed {seed}): a defect")
            if time.monotonic() - began > PLAN_S + ENCODE_S + 5:
                wrong.append(f"{name} mutation {number} (seed {seed}): took {time.monotonic() - began:.0f} s")
            ends[end] += 1
            path.unlink()
            shutil.rmtree(out)
            if number and number % 500 == 0:
                said(f"{number}: {dict(ends)}")

    async with Sandbox.open(folder) as sandbox:
        await asyncio.gather(*(worker(sandbox) for _ in range(2)))
    return ends, wrong


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to eight things wrong: bits, bytes, numbers, pieces missing, doubled or swapped, an end too early."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        # Headers and indexes are small and matter most: half of the harm is done near an end.
        span = min(len(made), chance.choice((256, 4096, len(made))))
        at = chance.randrange(span) if chance.random() < 0.7 else len(made) - 1 - chance.randrange(span)
        kind = chance.randrange(8)
        if kind == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[at] = chance.randrange(256)
        elif kind == 2:
            made[at : at + 4] = chance.choice(_NUMBERS).to_bytes(4, chance.choice(("big", "little")))
        elif kind == 3:
            made[at : at + 8] = chance.randbytes(8)
        elif kind == 4:
            del made[at : at + chance.randrange(1, 64)]
        elif kind == 5:
            made[at:at] = made[at : at + chance.randrange(1, 512)]
        elif kind == 6:
            other = chance.randrange(len(made))
            piece = bytes(made[at : at + 32])
            made[at : at + 32] = made[other : other + 32]
            made[other : other + 32] = piece
        else:
            del made[max(16, at) :]
        if len(made) < 16:
            return bytes(made)
    return bytes(made)


async def _examine(sandbox: Sandbox, path: Path, folder: Path, *, encode: bool) -> str:
    source = Bytes(path)
    try:
        plan = await sandbox.plan(source, ladder=LADDER, limits=LIMITS, timeout_s=PLAN_S)
        if encode:
            names = tuple(rendition.name for rendition in plan.renditions)
            await sandbox.encode(
                source, plan, chunks=range(1), renditions=names, folder=folder, timeout_s=ENCODE_S, eager=False
            )
    except MediaRefused as refused:
        if not refused.failure.detail.endswith("."):
            raise ValueError("a refusal without a sentence") from refused
        return refused.failure.code.value
    return "film"


def _film(folder: Path, name: str) -> Path:
    path = folder / f"seed.{name}"
    if not path.exists():
        command = [
            *("ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10:duration=2"),
            *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=2", *SEEDS[name], str(path)),
        ]
        if name == "webm":
            command[-1:-1] = ["-ar", "48000"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


if __name__ == "__main__":
    sys.exit(main())
