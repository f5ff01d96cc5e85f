"""The door to everything that opens a media file: killable, confined child processes.

`Sandbox.open` starts a small fork server (`av` preloaded, empty environment, no secrets in memory) before the process
loads its secrets; every task is a fresh child of it that confines itself and dies with the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from streamgate.media.model import EncodedChunk, LadderSettings, Limits, MediaPlan


class ByteSource(Protocol):
    """Random access to the bytes of a source. ``path``: the one local file that it is, else None."""

    size: int
    path: Path | None

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes (fewer only at the end)."""
        ...


class Sandbox:
    """Runs media tasks. Cancelling the awaiting task kills the child (by its process handle) before it returns."""

    @classmethod
    @asynccontextmanager
    async def open(cls, scratch: Path) -> AsyncIterator[Sandbox]:
        """Start the fork server; children may write only below ``scratch``. Leaving the block ends every child."""
        raise NotImplementedError
        yield

    async def plan(self, source: ByteSource, *, ladder: LadderSettings, limits: Limits, timeout_s: float = 60.0) -> MediaPlan:
        """Probe a source and plan its renditions.

        Raises `MediaRefused` with a code of the closed list: for a file that cannot be played, for a child that
        ran out of memory or time (``timeout``) or died (``malformed_media``).
        """
        raise NotImplementedError

    async def encode(
        self, source: ByteSource, plan: MediaPlan, *, chunk: int, renditions: tuple[str, ...], folder: Path,
        timeout_s: float, eager: bool = True,
    ) -> EncodedChunk:
        """Encode one chunk for a set of renditions, decoding once; segments become files in ``folder`` (which exists).

        ``eager`` work runs at nice 19 and is stopped (SIGSTOP, not counted towards its time) while a task that is not
        eager runs. Raises `MediaRefused` as `plan` does.
        """
        raise NotImplementedError

    async def poster(self, source: ByteSource, plan: MediaPlan, *, at_s: float | None, width: int = 1280, timeout_s: float = 30.0) -> bytes:
        """A JPEG of the film at a time (None: a fitting one), upright, at most ``width`` pixels wide."""
        raise NotImplementedError

    def protections(self) -> dict[str, bool]:
        """What confines children on this machine: ``landlock``, ``network_namespace``, ``no_new_privs``, ``rlimits``."""
        raise NotImplementedError
