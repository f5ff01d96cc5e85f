"""The one writer of an upload, across processes: the row names it, and who comes later asks it to let go.

`writers.Writers` settles the same inside a process. Where the database is of one process (SQLite) there is nobody else.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from streamgate.contracts.upload import UploadWanted
from streamgate.domain.errors import StreamGateError
from streamgate.plugins.upload import store
from streamgate.plugins.upload.writers import Writers
from streamgate.ports.bus import Bus
from streamgate.runtime.database import Database
from streamgate.runtime.events import send_signal

HAND_OVER_S = 0.8
"""Seconds that another process has to store what it got; after that the upload is taken from it."""

LOOK_AGAIN_S = 0.03


class Locks:
    """The uploads that this process writes to."""

    def __init__(self, database: Database, bus: Bus, writers: Writers) -> None:
        self._database = database
        self._bus = bus
        self._writers = writers
        self._alone = database.dialect == "sqlite"
        self._held: dict[str, str] = {}

    @asynccontextmanager
    async def taken(self, upload_id: str) -> AsyncIterator[str | None]:
        """The lock for as long as the block runs: its token, or None when the upload is not open.

        What another process wrote until now counts, unless it said nothing for `HAND_OVER_S`; what it writes later never does.
        """
        await self._asked_for(upload_id)
        token = secrets.token_hex(16)
        async with self._database.write() as tx:
            locked = await store.lock(tx, upload_id, token)
        if not locked:
            yield None
            return
        self._held[upload_id] = token
        try:
            yield token
        finally:
            if self._held.get(upload_id) == token:
                del self._held[upload_id]
            await self._let_go(upload_id, token)

    async def freed(self, upload_id: str) -> None:
        """Return when no other process writes to the upload, nor can: what was written by then is all there is."""
        silent = await self._asked_for(upload_id)
        if silent is not None:
            async with self._database.write() as tx:
                await store.unlock(tx, upload_id, silent)

    async def wanted(self, signal: UploadWanted) -> None:
        """Listens: another process is to write; who writes here stores what came, and ends."""
        if self._held.get(signal.upload_id) == signal.token:
            await self._writers.stop(signal.upload_id)

    async def _asked_for(self, upload_id: str) -> str | None:
        """Ask whoever writes elsewhere to let go, and wait for it; the token of one that did not, if any."""
        if self._alone:
            return None
        loop = asyncio.get_running_loop()
        until, asked = loop.time() + HAND_OVER_S, None
        while (holder := await self._holder(upload_id)) is not None and loop.time() < until:
            if holder != asked:
                await send_signal(self._bus, UploadWanted(upload_id=upload_id, token=holder))
                asked = holder
            await asyncio.sleep(LOOK_AGAIN_S)
        return holder

    async def _holder(self, upload_id: str) -> str | None:
        async with self._database.read() as connection:
            return await store.holder(connection, upload_id)

    async def _let_go(self, upload_id: str, token: str) -> None:
        """A lock that cannot be let go of now costs the next writer `HAND_OVER_S`, and nothing else."""
        if self._alone:
            return
        with suppress(StreamGateError):
            async with self._database.write() as tx:
                await store.unlock(tx, upload_id, token)
