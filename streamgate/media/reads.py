"""Bytes of a source for a media child: read by the server, which alone can reach them, as the child asks for them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from streamgate.domain.errors import StreamGateError
from streamgate.media.wire import MANY_RANGES, MAX_RANGE, MAX_RANGES

_READ_S = 30.0
_READS_AT_ONCE = 8


class ByteSource(Protocol):
    """Random access to the bytes of a source. ``path``: the one local file that it is, else None."""

    size: int
    path: Path | None

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly those bytes (fewer only at the end)."""
        ...


def may_be_read(ranges: tuple[tuple[int, int], ...], size: int) -> bool:
    """Whether a child may ask a source of ``size`` bytes for these ranges at once: its words are those of a stranger's file."""
    return (
        len(ranges) <= MANY_RANGES
        and sum(length for _, length in ranges) <= MAX_RANGES
        and all(offset >= 0 and 0 < length <= MAX_RANGE and offset + length <= size for offset, length in ranges)
    )


async def read_ranges(source: ByteSource, ranges: tuple[tuple[int, int], ...]) -> tuple[bytes, ...] | None:
    """The ranges, a few at a time; None when one cannot be read."""
    turns = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(offset: int, length: int) -> bytes:
        async with turns:
            return await source.read(offset, length)

    found: tuple[bytes, ...] | None = None
    try:
        async with asyncio.timeout(_READ_S):
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(read(*wanted)) for wanted in ranges]
            found = tuple(read.result() for read in reads)
    except* (OSError, StreamGateError, TimeoutError) as errors:
        names = {type(error).__name__ for error in errors.exceptions}
        structlog.get_logger().warning("the source of a film cannot be read", error=", ".join(sorted(names)))
    return found
