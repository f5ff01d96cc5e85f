"""Whether there is room for more: the size of a film, the quota of its owner, the disk."""

from __future__ import annotations

from collections.abc import Mapping

from streamgate.domain.errors import InsufficientStorage, PayloadTooLarge
from streamgate.domain.identity import Caller
from streamgate.kernel import Check
from streamgate.plugins.upload import store
from streamgate.plugins.upload.settings import UploadSettings
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database


class Room:
    """What may still come."""

    def __init__(self, settings: UploadSettings, database: Database, blobs: BlobStore) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs

    async def check(self, caller: Caller, size: int) -> None:
        """Raises `PayloadTooLarge` or `InsufficientStorage` when so many more bytes may not or cannot come."""
        if size > self._settings.max_size:
            raise PayloadTooLarge(f"A film may have at most {self._settings.max_size} bytes.")
        async with self._database.read() as connection:
            _, announced = await store.open_ones(connection)
            quota = self._settings.quota_bytes
            used = await store.used_by(connection, caller.account or "") if quota is not None else 0
        if quota is not None and used + size > quota:
            raise InsufficientStorage(f"Your quota of {quota} bytes has room for {max(0, quota - used)} more.")
        free = await self._blobs.free_bytes()
        if free is not None and size > free - announced - self._settings.reserve_bytes:
            raise InsufficientStorage("There is not enough free space for this upload.")

    async def health(self) -> Mapping[str, Check]:
        """Degraded while there is no room for another byte; how many uploads are open, and what they still announce."""
        async with self._database.read() as connection:
            count, announced = await store.open_ones(connection)
        values = {"open": float(count), "announced_bytes": float(announced)}
        free = await self._blobs.free_bytes()
        if free is not None and free - announced <= self._settings.reserve_bytes:
            return {
                "": Check("degraded", "the disk has no room for more than what open uploads have announced", values)
            }
        return {"": Check("ok", f"{count} uploads are open", values)}
