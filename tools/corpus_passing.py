"""``make corpus-passing DIR=…``: what of every file of a folder passes through, why, and whether it comes out as it went in.

For each file that passes: its first pictures are decoded out of the served segments and out of the source by the ffmpeg
command line; they must be the same, bit for bit, at the same times after edit lists. Coded sound must be the source's packets at
its times. Times may differ by 5 ms, as picture and sound would then stand apart. Anything else counts as wrong, and the command
exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import msgspec

from streamgate.domain.asset import MediaRefused
from streamgate.media.model import Limits, MediaPlan, PlannedRendition
from streamgate.media.recipe import unpack
from streamgate.media.sandbox import Sandbox
from streamgate.packaging.segments import StoredIndex, assemble
from tools.corpus import FFMPEG, LADDER, NOT_MEDIA, FileSource

PASSING = msgspec.structs.replace(LADDER, passthrough=True)
MOST = 240
"""Pictures, or packets of sound, that are compared."""

APART_S = 0.005


def main() -> int:
    """Examine a folder; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.corpus_passing", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() not in NOT_MEDIA)
    found = asyncio.run(_folder(folder, files))
    print(f"\n{len(files)} files: " + ", ".join(f"{number} {name}" for name, number in sorted(found.items())))
    return 1 if found["wrong"] else 0


async def _folder(root: Path, files: list[Path]) -> Counter[str]:
    count: Counter[str] = Counter()
    print("| file | mode | reason | verdict |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        async with Sandbox.open(Path(scratch)) as sandbox:
            for path in files:
                try:
                    plan = await sandbox.plan(FileSource(path), ladder=PASSING, limits=Limits())
                except MediaRefused as refused:
                    mode, reason, verdict = "refused", refused.failure.code.value, "–"
                else:
                    passes = any(r.passthrough is not None for r in plan.renditions)
                    mode, reason = "passthrough" if passes else "encode", plan.reason
                    verdict = await asyncio.to_thread(_verdict, path, plan, Path(scratch)) if passes else "–"
                count["wrong" if verdict.startswith("wrong") else mode] += 1
                print(f"| {path.relative_to(root)} | {mode} | {reason} | {verdict} |", flush=True)
    return count


def _verdict(path: Path, plan: MediaPlan, scratch: Path) -> str:
    stored = StoredIndex.load(plan.index, path.stat().st_size)
    told = []
    for rendition in (r for r in plan.renditions if r.passthrough is not None):
        made = scratch / "served.mp4"
        made.write_bytes(rendition.init + _served(path, stored, rendition))
        stream = [t.index for t in plan.tracks if t.kind == rendition.kind][max(0, rendition.track - 1)]
        ours = _read(made, rendition.kind, 0, MOST)
        theirs = _read(path, rendition.kind, stream, MOST + 8)
        told.append(f"{rendition.name}: {_compared(ours, theirs, unpack(plan.recipe).zero())}")
    return ("wrong: " if any("differ" in one for one in told) else "") + "; ".join(told)


def _served(path: Path, stored: StoredIndex, rendition: PlannedRendition) -> bytes:
    """All segments, one after the other."""
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        numbers = range(len(rendition.boundaries) - 1)
        assert rendition.passthrough is not None
        return b"".join(assemble(stored.segment(rendition.passthrough, n), read) for n in numbers)


def _compared(ours: list[tuple[Fraction, str]], theirs: list[tuple[Fraction, str]], origin: Fraction) -> str:
    """How far what is served is what was uploaded. Sound may lack whole frames of priming at its beginning."""
    if not ours:
        return "nothing is served, they differ"
    content = [digest for _, digest in theirs]
    first = content.index(ours[0][1]) if ours[0][1] in content else 0
    pairs = list(zip(ours, theirs[first:], strict=False))
    others = sum(a[1] != b[1] for a, b in pairs) + max(0, min(MOST, len(theirs) - first) - len(ours))
    apart = max(abs(a[0] - (b[0] - origin)) for a, b in pairs)
    differ = f", {others} differ" if others else ""
    late = "" if apart <= APART_S else " differ in time"
    return f"{len(pairs) - others} of {len(pairs)} the same{differ}, times within {float(apart) * 1000:.1f} ms{late}"


def _read(path: Path, kind: str, stream: int, most: int) -> list[tuple[Fraction, str]]:
    """When each picture is shown, or each packet of sound is heard, and a digest of it, as the ffmpeg command line reads them.

    On the container's own clock: ffmpeg would round the times of pictures to the rate that it takes the film to have.
    """
    pictures = ("-fps_mode", "passthrough", "-enc_time_base", "demux", "-frames:v")
    how = pictures if kind == "video" else ("-c", "copy", "-frames:a")
    command = [FFMPEG, "-v", "quiet", "-copyts", "-noautorotate", "-i", str(path), "-map", f"0:{stream}"]
    command += [*how, str(most), "-f", "framemd5", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    base, found = Fraction(1), []
    for line in lines.splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.partition(": ")[2])
        elif not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            found.append((int(fields[2]) * base, fields[5]))
    return found


if __name__ == "__main__":
    sys.exit(main())
