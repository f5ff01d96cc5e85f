"""One writer per upload: who comes later gets the upload, who had it stops first, with what it has stored."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from streamgate.domain.errors import Conflict

T = TypeVar("T")


class Writers:
    """The writers of this process, by upload."""

    def __init__(self) -> None:
        self._at_work: dict[str, asyncio.Task[Any]] = {}

    async def run(self, upload_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` as the one writer; `Conflict` when a later one took the upload over."""
        try:
            await self.stop(upload_id)
        except BaseException:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        self._at_work[upload_id] = task
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Conflict("Another request has taken this upload over.") from None
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            if self._at_work.get(upload_id) is task:
                del self._at_work[upload_id]

    async def stop(self, upload_id: str) -> None:
        """Return when nobody writes: whoever did has stored what it had and stopped."""
        while (task := self._at_work.get(upload_id)) is not None:
            task.cancel()
            await asyncio.wait([task])
            if self._at_work.get(upload_id) is task:
                del self._at_work[upload_id]
