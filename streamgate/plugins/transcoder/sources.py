"""The sources of films, and whether all of them is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, cast

from streamgate.contracts.upload import Source, Uploads
from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import NotFound
from streamgate.plugins.transcoder.objects import all_there
from streamgate.ports.storage import BlobStore

GONE = "The uploaded bytes of the film are gone. Upload it again."

T = TypeVar("T")
V = TypeVar("V")


class Sources:
    """Where the bytes of films lie. Every method raises `MediaRefused` when they are gone."""

    def __init__(self, uploads: Uploads, blobs: BlobStore) -> None:
        self._uploads = uploads
        self._blobs = blobs

    async def whole(self, asset_id: str) -> Source:
        """The source, when all of it is there."""
        source = await self.named(asset_id)
        await self.complete(source)
        return source

    async def named(self, asset_id: str) -> Source:
        """The source, as the upload service names its objects; they have not been looked up."""
        try:
            return await self._uploads.source(asset_id)
        except NotFound:
            raise MediaRefused(FailureCode.TRUNCATED_MEDIA, GONE) from None

    async def complete(self, source: Source) -> None:
        """Return when all of a source is there."""
        if not await all_there(self._blobs, [part.key for part in source.parts]):
            raise MediaRefused(FailureCode.TRUNCATED_MEDIA, GONE)


async def checked(work: Awaitable[T], check: Awaitable[None]) -> T:
    """What the work came to, once a check beside it has ended; raises the error of the check before that of the work."""
    _, done = await both(check, work)
    return done


async def both(first: Awaitable[T], second: Awaitable[V]) -> tuple[T, V]:
    """What two came to that went on beside each other, once both have ended; raises the error of the first before that of the
    second."""
    made, found = await asyncio.gather(first, second, return_exceptions=True)
    for outcome in (made, found):
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("T", made), cast("V", found)
