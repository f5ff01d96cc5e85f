"""Where the children of a job may write."""

from __future__ import annotations

from pathlib import Path

from streamgate.runtime.jobs import Attempt


def scratch_folder(scratch: Path, attempt: Attempt) -> Path:
    """An empty folder for what a child of this attempt writes; who asked for it removes it."""
    folder = scratch / f"{attempt.job.id}-{attempt.job.attempt}"
    folder.mkdir(mode=0o700, parents=True)
    return folder
