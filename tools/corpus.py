"""``make corpus DIR=…``: every file of a folder through looking, planning, encoding and packaging; a table file by file.

For each file: it plays (every segment of the highest rendition decodes, its pictures are those of the ffmpeg command line, one
for one, at SSIM 0.98 or better, its times are the source's), or it is refused with a code of the closed list. Anything else, a
crash, a hang, a refusal without a code, counts as wrong, and the command exits with 1. Nothing of the product is bypassed but
HTTP and jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.media.recipe import unpack
from streamgate.media.sandbox import Sandbox

LADDER = LadderSettings(rungs=(4320,), preset="ultrafast", crf=8.0, rate_factor=12.0)
"""One rendition of the source's own size, so good that what differs from the source differs by mistake."""

LEAST_SSIM = 0.98
MOST_PICTURES = 400
MOST_BYTES = 600 << 20
"""Of pictures that are held at a time."""

LONGEST_S = 120.0
ENOUGH_S = 16.0
"""Seconds of a long film that are looked at."""

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
NOT_MEDIA = frozenset({".md", ".txt", ".json", ".xml", ".dump", ".vtt", ".srt", ".ttml"})


@dataclass
class Row:
    """What became of one file. ``outcome``: plays, refused, or wrong."""

    file: str
    outcome: str
    detail: str
    pictures: str = "–"
    ssim: str = "–"
    drift_ms: str = "–"
    seconds: float = 0.0


class FileSource:
    """A local file as a source of the sandbox."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self.size = path.stat().st_size

    async def read(self, offset: int, length: int) -> bytes:
        """Never asked for: the child opens the path itself."""
        raise NotImplementedError


def main() -> int:
    """Examine a folder; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tools.corpus", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="part of the names of the files to examine")
    arguments = parser.parse_args()
    files = sorted(p for p in arguments.folder.rglob("*") if p.is_file() and p.suffix.lower() not in NOT_MEDIA)
    chosen = [p for p in files if not arguments.only or arguments.only in str(p)]
    rows = asyncio.run(_folder(arguments.folder, chosen))
    count = Counter(row.outcome for row in rows)
    print(f"\n{len(rows)} files: " + ", ".join(f"{number} {name}" for name, number in sorted(count.items())))
    return 1 if count["wrong"] else 0


async def _folder(root: Path, files: list[Path]) -> list[Row]:
    rows = []
    print("| file | outcome | pictures ours/theirs | SSIM | largest time error | seconds |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        async with Sandbox.open(Path(scratch)) as sandbox:
            for number, path in enumerate(files):
                began = time.monotonic()
                folder = Path(scratch) / str(number)
                folder.mkdir()
                try:
                    async with asyncio.timeout(LONGEST_S):
                        row = await examine(sandbox, path, folder)
                except TimeoutError:
                    row = Row("", "wrong", f"no answer within {LONGEST_S:.0f} s")
                except Exception as error:  # noqa: BLE001 (the point is to see everything)
                    row = Row("", "wrong", f"{type(error).__name__}: {error}")
                shutil.rmtree(folder, ignore_errors=True)
                row.file, row.seconds = str(path.relative_to(root)), time.monotonic() - began
                rows.append(row)
                told = f"{row.outcome}: {row.detail}" if row.detail else row.outcome
                print(
                    f"| {row.file} | {told} | {row.pictures} | {row.ssim} | {row.drift_ms} | {row.seconds:.1f} |",
                    flush=True,
                )
    return rows


async def examine(sandbox: Sandbox, path: Path, folder: Path) -> Row:
    """What becomes of one file. ``folder``: an empty one below the sandbox's scratch folder."""
    source = FileSource(path)
    try:
        plan = await sandbox.plan(source, ladder=LADDER, limits=Limits())
        files = await _encode(sandbox, source, plan, folder)
    except MediaRefused as refused:
        wrong = refused.failure.code is FailureCode.INTERNAL or not refused.failure.detail
        known = _theirs_reads(path) if not wrong else ""
        return Row("", "wrong" if wrong else "refused", f"{refused.failure.code} ({refused.failure.detail}){known}")
    notes = [warning.code for warning in plan.warnings]
    video = next((rendition for rendition in plan.renditions if rendition.kind == "video"), None)
    if video is None:
        problem = _sound(files, plan)
        return Row("", "wrong" if problem else "plays", problem or ", ".join(["sound alone", *notes]))
    return _compare(path, files[video.name], video, plan, notes)


async def _encode(sandbox: Sandbox, source: FileSource, plan: MediaPlan, folder: Path) -> dict[str, Path]:
    """Every rendition as one file: its init segment and its segments."""
    files = {r.name: folder / f"{r.name}.mp4" for r in plan.renditions}
    for rendition in plan.renditions:
        files[rendition.name].write_bytes(rendition.init)
    names = tuple(files)
    failures: list[MediaRefused] = []
    longest = max(plan.renditions, key=lambda r: len(r.boundaries))
    for chunk, (first, _) in enumerate(plan.chunks):
        if longest.boundaries[first] > ENOUGH_S * longest.timescale:
            break
        place = folder / f"chunk-{chunk}"
        place.mkdir()
        try:
            made = await sandbox.encode(
                source,
                plan,
                chunks=range(chunk, chunk + 1),
                renditions=names,
                folder=place,
                timeout_s=LONGEST_S,
                eager=False,
            )
        except MediaRefused as refused:
            failures.append(refused)
            continue
        for segment in sorted(made.segments, key=lambda s: (s.rendition, s.number)):
            with files[segment.rendition].open("ab") as file:
                file.write((place / segment.file).read_bytes())
        shutil.rmtree(place)
    if len(failures) > chunk:
        raise failures[0]
    return files


def _sound(files: dict[str, Path], plan: MediaPlan) -> str:
    """What is wrong with a film of sound alone; empty when nothing is."""
    for rendition in plan.renditions:
        done = subprocess.run(
            [FFMPEG, "-v", "error", "-xerror", "-i", str(files[rendition.name]), "-f", "null", "-"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or done.stderr:
            return f"{rendition.name} does not decode: {done.stderr[:200]}"
    return ""


def _compare(path: Path, made: Path, video: PlannedRendition, plan: MediaPlan, notes: list[str]) -> Row:
    width, height = video.width or 0, video.height or 0
    ours = pictures(made, width, height)
    stream = next(t.index for t in plan.tracks if t.kind == "video" and t.width)
    recipe = unpack(plan.recipe).video
    assert recipe is not None
    theirs = pictures(path, width, height, stream=stream, matrix=recipe.matrix)
    our_times, their_times = _times(made), _times(path, stream)
    row = Row("", "plays", ", ".join(notes), f"{len(ours)}/{len(theirs)}")
    if not len(ours):
        row.outcome, row.detail = "wrong", "no picture is served"
        return row
    if plan.duration > ENOUGH_S:
        # The rest of a long film is not encoded here; its last pictures hang on what was left out.
        theirs, their_times = theirs[: len(ours)], their_times[: len(our_times)]
    if not len(theirs):
        row.detail = ", ".join([*notes, "ffmpeg shows nothing"])
        return row
    pairs = _paired(our_times, their_times) if len(ours) != len(theirs) else [(n, n) for n in range(len(ours))]
    values = [_ssim(ours[a], theirs[b]) for a, b in pairs if a < len(ours) and b < len(theirs)]
    row.ssim = f"{min(values):.3f}" if values else "–"
    # A first picture that begins late is shown from the beginning, so the others say where the film lies.
    apart = [our_times[a] - their_times[b] for a, b in pairs[1:] if a < len(our_times) and b < len(their_times)]
    drift = [abs(one - float(np.median(apart))) for one in apart]
    row.drift_ms = f"{max(drift) * 1000:.1f} ms" if drift else "–"
    doubts = []
    if recipe.wide:
        notes.append("high dynamic range, shown in standard range")
        values = []
    rate = len(their_times) / max(0.001, their_times[-1] - their_times[0]) if len(their_times) > 1 else 0.0
    if rate > LADDER.max_frame_rate * 1.05:
        notes.append(f"thinned from {rate:.0f} pictures a second")
    elif (
        abs(len(ours) - len(theirs)) > max(1, 0.01 * len(theirs))
        and len(theirs) < MOST_PICTURES
        and len(theirs) * width * height < MOST_BYTES
    ):
        doubts.append("another number of pictures")
    if values and float(np.median(values)) < LEAST_SSIM:
        doubts.append("other pictures")
    if drift and max(drift) > 0.05:
        doubts.append("other times")
    row.detail = ", ".join([*doubts, *notes])
    if doubts:
        row.outcome = "differs"
    return row


def _paired(ours: list[float], theirs: list[float]) -> list[tuple[int, int]]:
    """Each of our pictures with the one of theirs that is nearest in time."""
    if not ours or not theirs:
        return []
    times = np.array(theirs) - theirs[0]
    return [(n, int(np.abs(times - (time - ours[0])).argmin())) for n, time in enumerate(ours)]


def pictures(path: Path, width: int, height: int, stream: int | None = None, matrix: str | None = None) -> Any:
    """The luma of up to so many pictures as the ffmpeg command line decodes them, upright, at that size, BT.709.

    ``matrix``: that of the source; None for what is BT.709 already.
    """
    colour = f":in_color_matrix={matrix}:out_color_matrix=bt709" if matrix else ""
    chosen = f"0:{stream}" if stream is not None else "0:v:0"
    most = max(8, min(MOST_PICTURES, MOST_BYTES // (width * height)))
    command = [
        *(
            FFMPEG,
            "-v",
            "quiet",
            "-i",
            str(path),
            "-map",
            chosen,
            "-fps_mode",
            "passthrough",
            "-frames:v",
            str(most),
        ),
        *(
            "-vf",
            f"scale={width}:{height}:flags=bicubic{colour}:out_range=limited,format=yuv420p,extractplanes=y",
            "-f",
            "rawvideo",
            "-",
        ),
    ]
    data = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).stdout
    whole = len(data) // (width * height) * width * height
    return np.frombuffer(data[:whole], dtype=np.uint8).reshape(-1, height, width)


def _times(path: Path, stream: int | None = None) -> list[float]:
    """Presentation times of decoded pictures, in seconds, as ffprobe finds them."""
    command = [
        *("ffprobe", "-v", "quiet", "-of", "json", "-select_streams", str(stream) if stream is not None else "v:0"),
        *("-show_entries", "frame=best_effort_timestamp_time", "-read_intervals", f"%+{ENOUGH_S + 8:.0f}", str(path)),
    ]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    try:
        frames = json.loads(done.stdout).get("frames", [])
    except json.JSONDecodeError:
        return []
    return [float(f["best_effort_timestamp_time"]) for f in frames if "best_effort_timestamp_time" in f][:MOST_PICTURES]


def _theirs_reads(path: Path) -> str:
    """A note when the ffmpeg command line decodes something of a file that we refuse."""
    command = [FFMPEG, "-v", "quiet", "-i", str(path), "-map", "0:v?", "-map", "0:a?", "-f", "null", "-"]
    done = subprocess.run([*command[:-1], "-progress", "pipe:1", "-"], capture_output=True, text=True, check=False)
    last = [line for line in done.stdout.splitlines() if line.startswith(("frame=", "out_time_us="))]
    return f"; ffmpeg: {' '.join(last[-2:])}" if done.returncode == 0 and last else ""


def _ssim(a: Any, b: Any) -> float:
    """Mean structural similarity over blocks of 8 x 8 (Wang et al. 2004)."""
    height, width = (size // 8 * 8 for size in a.shape)
    if not height or not width:
        return 1.0
    x, y = (p[:height, :width].reshape(height // 8, 8, width // 8, 8).astype(np.float64) for p in (a, b))
    mx, my = x.mean((1, 3)), y.mean((1, 3))
    vx, vy = x.var((1, 3)), y.var((1, 3))
    cov = (x * y).mean((1, 3)) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


if __name__ == "__main__":
    sys.exit(main())
