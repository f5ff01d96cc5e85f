"""Uploads: the story of a film's bytes, from announcement to source.

The row counts, not the object: bytes are made durable first, then the offset is moved on condition that nobody else has.
So an acknowledged byte survives a crash, and finishing is one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

import structlog

from streamgate.contracts.metadata import AssetDeleted, Catalog
from streamgate.contracts.upload import IngestPayload, Source, UploadCompleted
from streamgate.domain.clock import Clock
from streamgate.domain.errors import (
    ChecksumMismatch,
    Conflict,
    Forbidden,
    NotFound,
    OffsetConflict,
    PayloadTooLarge,
    StreamGateError,
    UploadExpired,
    ValidationFailed,
)
from streamgate.domain.identity import Caller, Prefix, Role, is_id, new_id
from streamgate.plugins.upload import store, tus
from streamgate.plugins.upload.ahead import keep_ahead, may_go_ahead
from streamgate.plugins.upload.body import Body
from streamgate.plugins.upload.described import new_asset, short
from streamgate.plugins.upload.growth import Growth
from streamgate.plugins.upload.keeping import Interrupted, Kept, count, keeping
from streamgate.plugins.upload.locks import Locks
from streamgate.plugins.upload.orphans import remove_orphans
from streamgate.plugins.upload.room import Room
from streamgate.plugins.upload.settings import UploadSettings
from streamgate.plugins.upload.store import COMPLETE, EXPIRED, JOINED, OPEN, Upload
from streamgate.plugins.upload.tus import Checksum, Concatenation
from streamgate.plugins.upload.writers import Writers
from streamgate.ports.bus import Bus
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database, Transaction
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox

INGEST_PRIORITY = 5
FORGET_AFTER_S = 7 * 24 * 3600
ORPHAN_AGE_S = 3600


class UploadService:
    """Implements `contracts.upload.Uploads`, and tus behind its routes."""

    def __init__(
        self,
        *,
        settings: UploadSettings,
        database: Database,
        bus: Bus,
        outbox: Outbox,
        jobs: Jobs,
        blobs: BlobStore,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._database = database
        self._outbox = outbox
        self._jobs = jobs
        self._blobs = blobs
        self._catalog = catalog
        self._clock = clock
        self._writers = Writers()
        self._locks = Locks(database, bus, self._writers)
        self.wanted = self._locks.wanted
        self._keeping = keeping(blobs, database)
        self._growth = Growth(jobs, database, self._keeping, clock)
        self.growing = self._growth.source
        self._room = Room(settings, database, blobs)
        self.health = self._room.health

    async def source(self, asset_id: str) -> Source:
        async with self._database.read() as connection:
            found = [u for u in await store.of_asset(connection, asset_id) if u.state == COMPLETE]
            parts = await store.parts_of(connection, asset_id) if found else []
        if not found:
            raise NotFound("The film has no completed upload.")
        return Source(
            asset_id=asset_id,
            size=sum(part.length for part in parts),
            parts=tuple(parts),
            filename=found[0].filename,
            filetype=found[0].filetype,
        )

    async def create(self, caller: Caller, headers: Mapping[str, str]) -> Upload:
        """Announce an upload: check that it may come and that there is room, make its film, and remember it."""
        caller.require(Role.CREATOR)
        concatenation = tus.concatenation(headers)
        described = tus.metadata(headers)
        if concatenation is not None and not concatenation.partial:
            return await self._join(caller, concatenation, headers, described)
        length = tus.announced_length(headers)
        partial = concatenation is not None
        await self._room.check(caller, length or 0)
        new = None if partial else new_asset(described)
        asset_id = (await self._catalog.create(caller, new)).id if new else None
        upload = self._new(caller, headers, described, length=length, asset_id=asset_id, partial=partial)
        async with self._database.write() as tx:
            await store.add(tx, upload)
        if length == 0:
            return await self._complete(upload, None)
        return upload

    async def append(
        self, caller: Caller, upload_id: str, body: Body, headers: Mapping[str, str], offset: int
    ) -> Upload:
        """Store what comes, from ``offset`` on; the upload as it is then.

        Raises `OffsetConflict`, `PayloadTooLarge`, `ChecksumMismatch` (nothing was kept), `InsufficientStorage`, or
        `SenderGone` (what came was kept).
        """
        if (await self.find(caller, upload_id)).joined is not None:
            raise Forbidden("A final upload takes no bytes: it is made of its parts (tus, concatenation).")
        return await self._writers.run(upload_id, self._append(caller, upload_id, body, headers, offset))

    async def keep_index(self, caller: Caller, upload_id: str, body: Body, offset: int, size: int | None) -> None:
        """Keep the end of the file, from ``offset`` on, which comes ahead of the rest (`ahead`)."""
        upload = await self.find(caller, upload_id)
        may_go_ahead(upload, offset, size)
        await self._room.check(caller, size or 0)
        await keep_ahead(upload, size or 0, body, self._blobs, self._database, self._growth)

    async def settled(self, caller: Caller, upload_id: str) -> Upload:
        """The upload when nobody writes to it any more, so that its offset is final."""
        await self.find(caller, upload_id)
        await self._writers.stop(upload_id)
        await self._locks.freed(upload_id)
        return await self.find(caller, upload_id)

    async def find(self, caller: Caller, upload_id: str) -> Upload:
        """The caller's upload; `NotFound` for anybody else's, `UploadExpired` when it was swept."""
        upload = None
        if is_id(upload_id, Prefix.UPLOAD):
            async with self._database.read() as connection:
                upload = await store.get(connection, upload_id)
        if upload is None or not caller.owns(upload.owner):
            raise NotFound("There is no such upload.")
        late = upload.state == OPEN and upload.expires_ms <= self._clock.now_ms()
        if late or upload.state in {EXPIRED, JOINED}:
            raise UploadExpired("This upload has expired. Begin a new one.")
        return upload

    async def terminate(self, caller: Caller, upload_id: str) -> None:
        """Give an upload up: its bytes go, and its film with them. A completed one is only forgotten; its film stays."""
        upload = await self.settled(caller, upload_id)
        if upload.state == COMPLETE and not upload.partial:
            return
        await self._drop(upload, None)

    async def asset_deleted(self, fact: AssetDeleted) -> None:
        """Listens: the bytes of a film that is gone go too, and so does an upload that still ran."""
        async with self._database.read() as connection:
            running = [u for u in await store.of_asset(connection, fact.asset_id) if u.state != EXPIRED]
        for upload in running:
            await self._writers.stop(upload.id)
        async with self._database.write() as tx:
            keys = await store.drop_parts(tx, fact.asset_id)
            for upload in running:
                keys += await store.drop_parts(tx, upload.id)
                await store.remove(tx, upload.id)
        for key in keys:
            await self._blobs.delete(key)

    async def sweep(self) -> None:
        """Periodic: unfinished uploads whose time is over, and objects that nobody holds."""
        now = self._clock.now_ms()
        async with self._database.read() as connection:
            late = await store.expired(connection, now, 100)
        for upload in late:
            await self._writers.stop(upload.id)
            await self._drop(upload, EXPIRED)
            structlog.get_logger().info("upload expired", upload=upload.id, asset_id=upload.asset_id)
        async with self._database.write() as tx:
            await store.forget_old(tx, now - FORGET_AFTER_S * 1000)
        await remove_orphans(self._database, self._blobs, now - ORPHAN_AGE_S * 1000)

    async def drain(self, draining: asyncio.Event) -> None:
        """When the process begins to stop, hand over what runs: the bytes that came are stored and counted first."""
        await draining.wait()
        await self._writers.drain()

    async def _append(
        self, caller: Caller, upload_id: str, body: Body, headers: Mapping[str, str], offset: int
    ) -> Upload:
        async with self._locks.taken(upload_id) as token:
            upload = await self.find(caller, upload_id)
            if upload.offset != offset:
                raise OffsetConflict(
                    f"Upload-Offset is {offset}, the upload is at {upload.offset}. Ask with HEAD and go on there."
                )
            return upload if token is None else await self._write(caller, upload, token, body, headers)

    async def _write(
        self, caller: Caller, upload: Upload, token: str, body: Body, headers: Mapping[str, str]
    ) -> Upload:
        upload = await self._with_length(caller, upload, tus.number(headers, "Upload-Length"))
        announced = tus.number(headers, "Content-Length")
        if announced is not None:
            await self._check_body(caller, upload, announced)
        checksum = tus.checksum(headers)
        body.expect(self._left(upload), checksum)
        if checksum is not None:
            return await self._checked(upload, token, body, checksum)
        while upload.state != COMPLETE and not body.exhausted:
            upload = await self._portion(upload, token, body)
        await body.finish()
        return upload

    async def _portion(self, upload: Upload, token: str, body: Body) -> Upload:
        """Store and count the next portion; when the sender goes away or another takes over, what came counts too."""
        try:
            most = self._keeping.portion(upload.offset)
            kept = await self._keeping.keep(upload, body.take(most, self._keeping.within_s))
        except Interrupted as early:
            if early.kept.offset > upload.offset:
                await self._advance(upload, token, early.kept)
            raise early.cause from None
        return await self._advance(upload, token, kept)

    async def _checked(self, upload: Upload, token: str, body: Body, checksum: Checksum) -> Upload:
        """Store everything that comes; it counts whole, or, when it is not what was announced, not at all."""
        try:
            kept = await self._keeping.keep(upload, body.take(None))
        except Interrupted as early:
            await self._delete(early.kept.made)
            raise early.cause from None
        try:
            checksum.verify()
        except ChecksumMismatch:
            await self._delete(kept.made)
            raise
        return await self._advance(upload, token, kept)

    async def _advance(self, upload: Upload, token: str, kept: Kept) -> Upload:
        offset = kept.offset
        if offset == upload.offset and offset != upload.length:
            return upload
        expires_ms = self._clock.now_ms() + self._settings.expires_s * 1000
        after = replace(upload, offset=offset, expires_ms=expires_ms)
        try:
            if offset == upload.length:
                after = await self._complete(after, (upload, token, kept))
            else:
                async with self._database.write() as tx:
                    await self._move(tx, upload, token, kept, expires_ms)
                    await self._growth.moved(tx, after)
        except Conflict:
            await self._delete(kept.made)
            raise
        await self._delete(kept.replaced)
        return after

    async def _move(self, tx: Transaction, upload: Upload, token: str, kept: Kept, expires_ms: int) -> None:
        if not await store.advance(tx, upload, token, kept.offset, expires_ms):
            raise Conflict("Another request has taken this upload over.")
        await count(tx, upload, kept)

    async def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self._blobs.delete(key)

    async def _complete(self, upload: Upload, moved: tuple[Upload, str, Kept] | None) -> Upload:
        """Every byte is there: in one transaction they become the film's source, and looking at it is a job."""
        async with self._database.write() as tx:
            if moved is not None:
                before, token, kept = moved
                await self._move(tx, before, token, kept, upload.expires_ms)
            stale = await store.drop_ahead(tx, upload.id)
            await store.set_state(tx, upload.id, OPEN, COMPLETE, lock_token=None)
            if upload.asset_id is not None:
                await store.hand_over(tx, upload.id, upload.asset_id, 0)
                await self._submit(tx, upload)
        await self._delete(stale)
        return replace(upload, state=COMPLETE)

    async def _submit(self, tx: Transaction, upload: Upload) -> None:
        asset_id = upload.asset_id or ""
        await self._jobs.submit(
            tx,
            "transcoder.ingest",
            IngestPayload(asset_id=asset_id),
            queue="transcode",
            key=f"ingest:{asset_id}",
            priority=INGEST_PRIORITY,
            owner=upload.owner,
            subject=asset_id,
        )
        await self._outbox.announce(
            tx,
            UploadCompleted(asset_id=asset_id, upload_id=upload.id, owner=upload.owner, size=upload.length or 0),
        )

    async def _join(
        self, caller: Caller, concatenation: Concatenation, headers: Mapping[str, str], described: dict[str, str]
    ) -> Upload:
        """A final upload: the parts of finished partial ones, in order, become the source of a new film."""
        if "upload-length" in headers:
            raise ValidationFailed("A final upload has no Upload-Length: it is as long as its parts.").at(
                "Upload-Length"
            )
        pieces = [await self.find(caller, upload_id) for upload_id in concatenation.upload_ids]
        if not all(piece.partial and piece.state == COMPLETE for piece in pieces):
            raise Conflict("Only finished partial uploads can be joined. Finish each of them first.")
        length = sum(piece.offset for piece in pieces)
        if length > self._settings.max_size:
            raise PayloadTooLarge(f"A film may have at most {self._settings.max_size} bytes.")
        asset_id = (await self._catalog.create(caller, new_asset(described))).id
        upload = self._new(caller, headers, described, length=length, asset_id=asset_id, partial=False)
        upload = replace(upload, offset=length, joined=concatenation.header, state=COMPLETE)
        try:
            async with self._database.write() as tx:
                await store.add(tx, upload)
                position = 0
                for piece in pieces:
                    if not await store.set_state(tx, piece.id, COMPLETE, JOINED):
                        raise Conflict("A part was joined or given up meanwhile.")
                    position += await store.hand_over(tx, piece.id, asset_id, position)
                await self._submit(tx, upload)
        except StreamGateError:
            await self._catalog.discard(asset_id)
            raise
        return upload

    async def _drop(self, upload: Upload, leave: str | None) -> None:
        """Let go of an upload's bytes and film; ``leave``: the state to keep its row in, None to forget it."""
        async with self._database.write() as tx:
            keys = await store.drop_parts(tx, upload.id)
            if leave is None:
                await store.remove(tx, upload.id)
            else:
                await store.set_state(tx, upload.id, upload.state, leave, lock_token=None)
        if upload.asset_id is not None:
            await self._catalog.discard(upload.asset_id)
        for key in keys:
            await self._blobs.delete(key)

    async def _with_length(self, caller: Caller, upload: Upload, length: int | None) -> Upload:
        """The upload with a length that was left open and comes now."""
        if length is None or length == upload.length:
            return upload
        if upload.length is not None:
            raise ValidationFailed("Upload-Length was announced already and cannot change.").at("Upload-Length")
        if length < upload.offset:
            raise ValidationFailed("Upload-Length is less than what was uploaded already.").at("Upload-Length")
        await self._room.check(caller, length - upload.offset)
        async with self._database.write() as tx:
            await store.set_length(tx, upload.id, length)
        return replace(upload, length=length)

    def _left(self, upload: Upload) -> int:
        end = self._settings.max_size if upload.length is None else upload.length
        return end - upload.offset

    async def _check_body(self, caller: Caller, upload: Upload, announced: int) -> None:
        if announced > self._left(upload):
            raise PayloadTooLarge("The body is longer than what is left of the upload.")
        if upload.length is None:
            await self._room.check(caller, announced)

    def _new(
        self,
        caller: Caller,
        headers: Mapping[str, str],
        described: dict[str, str],
        *,
        length: int | None,
        asset_id: str | None,
        partial: bool,
    ) -> Upload:
        now = self._clock.now_ms()
        return Upload(
            id=new_id(Prefix.UPLOAD),
            owner=caller.account or "",
            asset_id=asset_id,
            state=OPEN,
            length=length,
            offset=0,
            partial=partial,
            joined=None,
            metadata=headers.get("upload-metadata", ""),
            filename=short(described.get("filename") or described.get("name")),
            filetype=short(described.get("filetype") or described.get("type")),
            lock_token=None,
            created_ms=now,
            expires_ms=now + self._settings.expires_s * 1000,
        )
