"""A film through the sandbox: planned, encoded chunk by chunk, each rendition joined into one file for readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamgate.media.model import LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.media.sandbox import Sandbox

SMALL = LadderSettings(rungs=(120, 240), preset="ultrafast")


class FileSource:
    """A local file as a source; ``by_path`` False: only ranges can be had, as from a store."""

    def __init__(self, path: Path, *, by_path: bool = True) -> None:
        self._file = path
        self.size = path.stat().st_size
        self.path = path if by_path else None
        self.ranges = 0

    async def read(self, offset: int, length: int) -> bytes:
        self.ranges += 1
        with self._file.open("rb") as file:
            file.seek(offset)
            return file.read(length)


@dataclass
class Encoded:
    """A film's plan, and by rendition its segments in order and the file that they make together."""

    plan: MediaPlan
    segments: dict[str, list[bytes]]
    files: dict[str, Path]

    def rendition(self, name: str) -> PlannedRendition:
        """The plan of one rendition."""
        return next(rendition for rendition in self.plan.renditions if rendition.name == name)

    @property
    def video(self) -> list[PlannedRendition]:
        """Video renditions, lowest first."""
        return [rendition for rendition in self.plan.renditions if rendition.kind == "video"]

    @property
    def audio(self) -> list[PlannedRendition]:
        """Audio renditions."""
        return [rendition for rendition in self.plan.renditions if rendition.kind == "audio"]


async def plan(sandbox: Sandbox, path: Path, ladder: LadderSettings = SMALL) -> MediaPlan:
    """Plan a film."""
    return await sandbox.plan(FileSource(path), ladder=ladder, limits=Limits())


async def encode_chunks(
    sandbox: Sandbox, source: FileSource, made: MediaPlan, chunks: range, names: tuple[str, ...], folder: Path
) -> dict[tuple[str, int], bytes]:
    """Encode consecutive chunks; the segments by rendition and number."""
    folder.mkdir(parents=True, exist_ok=True)
    done = await sandbox.encode(source, made, chunks=chunks, renditions=names, folder=folder, timeout_s=60, eager=False)
    found = {(s.rendition, s.number): (folder / s.file).read_bytes() for s in done.segments}
    assert {key: len(value) for key, value in found.items()} == {
        (s.rendition, s.number): s.length for s in done.segments
    }
    return found


async def encode(
    sandbox: Sandbox,
    path: Path,
    folder: Path,
    *,
    ladder: LadderSettings = SMALL,
    by_path: bool = True,
    room: Path | None = None,
) -> Encoded:
    """Plan a film and encode all of it that does not pass through; ``folder`` lies below the sandbox's scratch folder, and so does
    ``room``, where it may be written out."""
    source = FileSource(path, by_path=by_path)
    made = await sandbox.plan(source, ladder=ladder, limits=Limits(), folder=room)
    names = tuple(rendition.name for rendition in made.encoded)
    found: dict[tuple[str, int], bytes] = {}
    for run in made.runs:
        found |= await encode_chunks(sandbox, source, made, range(*run), names, folder / f"{run[0]}")
    segments = {r.name: [found[r.name, number] for number in range(len(r.boundaries) - 1)] for r in made.encoded}
    files = {}
    for rendition in made.encoded:
        files[rendition.name] = folder / f"{rendition.name}.mp4"
        files[rendition.name].write_bytes(rendition.init + b"".join(segments[rendition.name]))
    return Encoded(made, segments, files)
