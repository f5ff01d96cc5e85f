"""Keeping the bytes that come: durable first, counted afterwards.

A store that can append keeps an upload in one growing object. Any other gets immutable parts: small ones are joined with what
comes next until a part has its size, so that many short requests do not make many small objects.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import InsufficientStorage
from streamgate.plugins.upload import store
from streamgate.plugins.upload.body import SenderGone
from streamgate.plugins.upload.store import Upload
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database, Transaction

PART = 8 << 20
"""Size of a part in bytes; the last one of an upload is shorter."""

PORTION = 32 << 20
"""Bytes after which what has come counts while a long body still comes, where they make one object."""

PORTION_S = 1.0
"""Seconds after which it does."""

ENDS_EARLY = (SenderGone, asyncio.CancelledError, InsufficientStorage)
"""What may end a body before its end; what came before it is kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that are durable and do not count yet. ``offset``: the upload's once they do.

    ``parts``: the upload's last parts as they are to be, from ``position`` on; ``replaced``: keys that are then nobody's.
    """

    offset: int
    position: int
    parts: tuple[SourcePart, ...]
    replaced: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    """Objects that were made for it, to be deleted should it never count."""


class Interrupted(Exception):
    """The body ended early, because of ``cause``; ``kept`` is what came."""

    def __init__(self, kept: Kept, cause: BaseException) -> None:
        super().__init__()
        self.kept, self.cause = kept, cause


class Keeping(Protocol):
    """How bytes are kept."""

    within_s: float | None
    """Seconds after which what has come of a long body is to count, whatever its size; None: size alone decides."""

    def portion(self, offset: int) -> int:
        """How many bytes behind ``offset`` are kept at once, and then count."""
        ...

    def lasting(self, parts: Sequence[SourcePart]) -> Sequence[SourcePart]:
        """Those of the parts of an upload that stay what they are while it goes on."""
        ...

    async def keep(self, upload: Upload, data: AsyncIterator[bytes]) -> Kept:
        """Store all of ``data`` behind the upload's bytes; raises `Interrupted` when it ends early."""
        ...


async def count(tx: Transaction, upload: Upload, kept: Kept) -> None:
    """Write the parts down, in the transaction that moves the offset."""
    await store.set_parts(tx, upload.id, kept.position, kept.parts)


class Growing:
    """One object that grows."""

    within_s: float | None = PORTION_S

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def portion(self, offset: int) -> int:
        return PORTION

    def lasting(self, parts: Sequence[SourcePart]) -> Sequence[SourcePart]:
        return parts

    async def keep(self, upload: Upload, data: AsyncIterator[bytes]) -> Kept:
        key = f"uploads/{upload.id}/0"
        try:
            end = await self._blobs.append(key, upload.offset, data)
        except ENDS_EARLY as cause:
            info = await self._blobs.stat(key)
            end = max(upload.offset, info.length if info is not None else 0)
            raise Interrupted(_whole(key, end), cause) from cause
        return _whole(key, end)


def _whole(key: str, end: int) -> Kept:
    return Kept(end, 0, (SourcePart(key, end),))


@dataclass(slots=True)
class _Parts:
    """The parts of one request as they come."""

    offset: int
    position: int
    held: bytearray
    parts: list[SourcePart] = field(default_factory=list)
    replaced: tuple[str, ...] = ()
    made: list[str] = field(default_factory=list)

    def kept(self) -> Kept:
        return Kept(self.offset, self.position, tuple(self.parts), self.replaced, tuple(self.made))


class InParts:
    """Immutable objects of `PART` bytes."""

    within_s: float | None = None

    def __init__(self, blobs: BlobStore, database: Database) -> None:
        self._blobs = blobs
        self._database = database

    def portion(self, offset: int) -> int:
        return PART - offset % PART

    def lasting(self, parts: Sequence[SourcePart]) -> Sequence[SourcePart]:
        return parts[:-1] if parts and parts[-1].length < PART else parts

    async def keep(self, upload: Upload, data: AsyncIterator[bytes]) -> Kept:
        coming = await self._begin(upload)
        try:
            async for piece in data:
                coming.held += piece
                while len(coming.held) >= PART:
                    await self._put(upload, coming, PART)
        except ENDS_EARLY as cause:
            await _to_its_end(self._put(upload, coming, len(coming.held)))
            raise Interrupted(coming.kept(), cause) from cause
        await self._put(upload, coming, len(coming.held))
        return coming.kept()

    async def _begin(self, upload: Upload) -> _Parts:
        """Where the upload stands; a last part that is not full is taken up again."""
        async with self._database.read() as connection:
            count, last = await store.last_part(connection, upload.id)
        if last is None or last.length >= PART:
            return _Parts(upload.offset, count, bytearray())
        held = bytearray(await self._blobs.read(last.key, 0, last.length))
        return _Parts(upload.offset - last.length, count - 1, held, replaced=(last.key,))

    async def _put(self, upload: Upload, coming: _Parts, size: int) -> None:
        if not size:
            return
        key = f"uploads/{upload.id}/{coming.position + len(coming.parts)}-{secrets.token_hex(4)}"
        coming.made.append(key)
        await self._blobs.put(key, bytes(coming.held[:size]))
        del coming.held[:size]
        coming.parts.append(SourcePart(key, size))
        coming.offset += size


async def _to_its_end(work: Coroutine[object, object, None]) -> None:
    """Wait for work that must not be lost, also when whoever waits is told to stop meanwhile: the store's time limits bound it."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise


def keeping(blobs: BlobStore, database: Database) -> Keeping:
    """The way that suits the store."""
    return Growing(blobs) if blobs.can_append else InParts(blobs, database)
