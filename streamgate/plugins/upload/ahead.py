"""The end of a file, sent before the rest: where its index is there, the film plays while its bytes come.

It is an object of the upload's and no part of the film: it is looked at until the last byte has come, and then gone. The film is
planned from its own bytes.
"""

from __future__ import annotations

import secrets

from streamgate.contracts.upload import SourcePart
from streamgate.domain.errors import Conflict, PayloadTooLarge, ValidationFailed
from streamgate.plugins.upload import store
from streamgate.plugins.upload.body import Body, SenderGone
from streamgate.plugins.upload.growth import Growth
from streamgate.plugins.upload.store import OPEN, Upload
from streamgate.ports.storage import BlobStore
from streamgate.runtime.database import Database

MOST = 64 << 20
"""Bytes that may be sent ahead: an index needs some 4 MB for an hour."""


def may_go_ahead(upload: Upload, offset: int, size: int | None) -> None:
    """Return when these bytes are what may be sent ahead of an upload's. Raises `ValidationFailed` or `Conflict`."""
    if upload.partial or upload.joined is not None or upload.asset_id is None:
        raise Conflict("Only an upload that is a film by itself takes its index ahead.")
    if upload.state != OPEN:
        raise Conflict("The upload is complete: its index is there.")
    if upload.length is None:
        raise Conflict("The length of this upload is not known yet; its index cannot be told from its media.")
    if size is None:
        raise ValidationFailed("Content-Length is missing.").at("Content-Length")
    if not 0 < offset < upload.length:
        raise ValidationFailed("Upload-Offset must lie inside the file.").at("Upload-Offset")
    if offset + size != upload.length:
        raise ValidationFailed("What is sent ahead must be the file from Upload-Offset to its end.").at("Upload-Offset")
    if size > MOST:
        raise PayloadTooLarge(f"At most {MOST >> 20} MiB may be sent ahead.")


async def keep_ahead(
    upload: Upload, size: int, body: Body, blobs: BlobStore, database: Database, growth: Growth
) -> None:
    """Keep what is sent ahead, in place of anything sent so before.

    `SenderGone` when it does not come whole (nothing is kept), `Conflict` when the upload ended meanwhile.
    """
    key = f"uploads/{upload.id}/index-{secrets.token_hex(4)}"
    body.expect(size, None)
    info = await blobs.put(key, body.take(None))
    stale: str | None = key
    try:
        if info.length != size:
            raise SenderGone
        async with database.write() as tx:
            before = await store.ahead(tx, upload.id)
            if not await store.set_ahead(tx, upload.id, SourcePart(key, size)):
                raise Conflict("The upload has ended.")
            await growth.look_again(tx, upload)
        stale = before.key if before is not None else None
    finally:
        if stale is not None:
            await blobs.delete(stale)
