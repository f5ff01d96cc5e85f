"""Whether a media child has made what it was told to: its words are those of a process that parsed a stranger's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamgate.media.model import EncodedChunk, Grown, MediaPlan, remuxed_file
from streamgate.media.wire import EncodeTask
from streamgate.packaging.indexes import divided


def as_ordered(chunk: EncodedChunk, task: EncodeTask, folder: Path) -> bool:
    """Whether a child made exactly what it was told to; its words came out of a process that parsed a stranger's file."""
    ordered = {
        (rendition.name, number)
        for rendition in task.renditions
        for number in range(task.first, min(task.end, len(rendition.boundaries) - 1))
    }
    if len(chunk.segments) != len(ordered):
        return False
    for segment in chunk.segments:
        written = folder / f"{segment.rendition}.{segment.number}.m4s"
        if (segment.rendition, segment.number) not in ordered or segment.file != written.name:
            return False
        if not _is_file(written, segment.length):
            return False
    return True


def as_written(plan: MediaPlan, folder: Path | None, before: Grown | None) -> bool:
    """Whether the files are there that a child says it has written, and its index is one."""
    if not is_index(plan.index):
        return False
    if plan.remuxed_before not in {0, before.size if before is not None else 0}:
        return False
    if folder is None:
        return not plan.remuxed
    return _are_files(folder, plan.remuxed)


def is_index(index: bytes) -> bool:
    """Whether what a child calls a sample index can be stored as one; empty: it has none."""
    try:
        return not index or bool(divided("", index))
    except ValueError:
        return False


def as_copied(grown: Grown, before: Grown, folder: Path) -> bool:
    """The same of what a look has written, which goes on where the last one ended."""
    if grown.plan is not None and not is_index(grown.plan.index):
        return False
    if not grown.written:
        return True
    return grown.size == before.size + sum(grown.written) and _are_files(folder, grown.written)


def _are_files(folder: Path, lengths: Sequence[int]) -> bool:
    return all(_is_file(folder / remuxed_file(number), length) for number, length in enumerate(lengths))


def _is_file(path: Path, length: int) -> bool:
    return not path.is_symlink() and path.is_file() and path.stat().st_size == length
