"""Objects in the store, several at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from pathlib import Path

import structlog

from streamgate.domain.errors import StreamGateError
from streamgate.ports.storage import BlobStore

PIECE = 1 << 20
AT_ONCE = 16
"""Requests to the object store at a time."""

FEW = 4
"""Objects of a folder up to which each is asked for by itself."""


async def put_all(
    blobs: BlobStore, objects: Iterable[tuple[str, bytes | AsyncIterator[bytes]]], *, at_once: int = AT_ONCE
) -> None:
    """Store objects, each a key and its bytes; all are durable when this returns.

    Raises what one of them raised, when all that were begun have ended, as they have when this is cancelled.
    """
    left = iter(objects)
    while some := tuple(islice(left, at_once)):
        puts = (blobs.put(key, data) for key, data in some)
        for outcome in await asyncio.gather(*puts, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome


async def all_there(blobs: BlobStore, keys: Sequence[str]) -> bool:
    """Whether every one of the objects exists.

    Those of a folder that holds many are looked up in its list, which is one request for a thousand of them; what a list does not
    name is asked for by itself before it counts as missing.
    """
    wanted = set(keys)
    for folder, count in Counter(key.rpartition("/")[0] for key in wanted).items():
        if folder and count > FEW:
            wanted -= {info.key async for info in blobs.list(f"{folder}/")}
    left = sorted(wanted)
    for start in range(0, len(left), AT_ONCE):
        if None in await asyncio.gather(*(blobs.stat(key) for key in left[start : start + AT_ONCE])):
            return False
    return True


async def remove_all(blobs: BlobStore, keys: Iterable[str]) -> None:
    """Remove objects that no row names; what cannot be removed now is only wasted room."""
    for key in keys:
        try:
            await blobs.delete(key)
        except StreamGateError as error:
            structlog.get_logger().warning("an object was left behind", key=key, reason=error.detail)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """A file that a child wrote, in pieces."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
