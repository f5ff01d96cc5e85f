"""One writer per upload: who comes later gets the upload, who had it stops first, with what it has stored."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from streamgate.domain.errors import Conflict, Unavailable

T = TypeVar("T")


def _restarting() -> Unavailable:
    return Unavailable("This server is being restarted. What came is kept; go on in a moment.", retry_after=2)


class Writers:
    """The writers of this process, by upload."""

    def __init__(self) -> None:
        self._at_work: dict[str, asyncio.Task[Any]] = {}
        self._draining = False

    async def run(self, upload_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` as the one writer; `Conflict` when a later one took the upload over, `Unavailable` when the process stops."""
        try:
            await self.stop(upload_id)
            if self._draining:
                raise _restarting()
        except BaseException:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        self._at_work[upload_id] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._draining:
                raise _restarting() from None
            if task.cancelled():
                raise Conflict("Another request has taken this upload over.") from None
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            if self._at_work.get(upload_id) is task:
                del self._at_work[upload_id]

    async def drain(self) -> None:
        """The process stops: every writer stores what it has and ends, and no other begins."""
        self._draining = True
        for upload_id in list(self._at_work):
            await self.stop(upload_id)

    async def stop(self, upload_id: str) -> None:
        """Return when nobody writes: whoever did has stored what it had and stopped."""
        while (task := self._at_work.get(upload_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
            if self._at_work.get(upload_id) is task:
                del self._at_work[upload_id]
