"""All SQL of uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.contracts.upload import SourcePart
from streamgate.plugins.upload.tables import parts, uploads
from streamgate.runtime.database import Transaction

OPEN, COMPLETE, JOINED, EXPIRED = "open", "complete", "joined", "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as stored. Its bytes are the first ``offset`` bytes of its parts."""

    id: str
    owner: str
    asset_id: str | None
    state: str
    length: int | None
    offset: int
    partial: bool
    joined: str | None
    metadata: str
    filename: str | None
    filetype: str | None
    lock_token: str | None
    created_ms: int
    expires_ms: int
    index_key: str | None = None
    index_length: int | None = None


def _upload(row: Row[Any]) -> Upload:
    values = dict(row._mapping)
    values["partial"] = bool(values["partial"])
    return Upload(**values)


async def add(tx: Transaction, upload: Upload) -> None:
    """A new upload."""
    await tx.execute(insert(uploads).values({name: getattr(upload, name) for name in Upload.__dataclass_fields__}))


async def get(connection: AsyncConnection, upload_id: str) -> Upload | None:
    """One upload; None when there is none."""
    row = (await connection.execute(select(uploads).where(uploads.c.id == upload_id))).first()
    return None if row is None else _upload(row)


async def of_asset(connection: AsyncConnection, asset_id: str) -> list[Upload]:
    """The uploads of a film."""
    rows = await connection.execute(select(uploads).where(uploads.c.asset_id == asset_id))
    return [_upload(row) for row in rows]


async def lock(tx: Transaction, upload_id: str, token: str) -> bool:
    """Make ``token`` the writer; whoever was it before cannot move the offset any more. False when the upload is not open."""
    done = await tx.execute(
        update(uploads).where(uploads.c.id == upload_id, uploads.c.state == OPEN).values(lock_token=token)
    )
    return done.rowcount == 1


async def holder(connection: AsyncConnection, upload_id: str) -> str | None:
    """The token of whoever writes to an open upload; None when nobody does."""
    asked = select(uploads.c.lock_token).where(uploads.c.id == upload_id, uploads.c.state == OPEN)
    found: str | None = (await connection.execute(asked)).scalar()
    return found


async def unlock(tx: Transaction, upload_id: str, token: str) -> None:
    """``token`` is the writer no more, if it was."""
    await tx.execute(
        update(uploads).where(uploads.c.id == upload_id, uploads.c.lock_token == token).values(lock_token=None)
    )


async def set_length(tx: Transaction, upload_id: str, length: int) -> None:
    """The length that was left open is known now."""
    await tx.execute(update(uploads).where(uploads.c.id == upload_id, uploads.c.length.is_(None)).values(length=length))


async def advance(tx: Transaction, upload: Upload, token: str, offset: int, expires_ms: int) -> bool:
    """Bytes up to ``offset`` are durable and count from now on. False when another writer has taken over."""
    done = await tx.execute(
        update(uploads)
        .where(
            uploads.c.id == upload.id,
            uploads.c.offset == upload.offset,
            uploads.c.lock_token == token,
            uploads.c.state == OPEN,
        )
        .values(offset=offset, expires_ms=expires_ms)
    )
    return done.rowcount == 1


async def set_state(tx: Transaction, upload_id: str, was: str, now: str, **values: Any) -> bool:
    """Move an upload from one state to another; False when it was not in the first."""
    done = await tx.execute(
        update(uploads).where(uploads.c.id == upload_id, uploads.c.state == was).values(state=now, **values)
    )
    return done.rowcount == 1


async def ahead(connection: AsyncConnection, upload_id: str) -> SourcePart | None:
    """The end of the file that was sent ahead of an upload's bytes."""
    query = select(uploads.c.index_key, uploads.c.index_length).where(uploads.c.id == upload_id)
    row = (await connection.execute(query)).first()
    return None if row is None or row.index_key is None else SourcePart(row.index_key, row.index_length)


async def set_ahead(tx: Transaction, upload_id: str, sent: SourcePart | None) -> bool:
    """What was sent ahead, or None: it is nobody's any more. False when the upload is not open."""
    values = {"index_key": sent.key if sent else None, "index_length": sent.length if sent else None}
    done = await tx.execute(update(uploads).where(uploads.c.id == upload_id, uploads.c.state == OPEN).values(**values))
    return done.rowcount == 1


async def drop_ahead(tx: Transaction, upload_id: str) -> list[str]:
    """Let go of what was sent ahead, if anything was; its key."""
    sent = await ahead(tx, upload_id)
    if sent is None:
        return []
    await set_ahead(tx, upload_id, None)
    return [sent.key]


async def remove(tx: Transaction, upload_id: str) -> None:
    """Forget an upload and what it still holds."""
    await tx.execute(delete(parts).where(parts.c.holder == upload_id))
    await tx.execute(delete(uploads).where(uploads.c.id == upload_id))


async def set_parts(tx: Transaction, holder: str, position: int, held: Sequence[SourcePart]) -> None:
    """From ``position`` on, these are the objects that somebody holds."""
    await tx.execute(delete(parts).where(parts.c.holder == holder, parts.c.position >= position))
    rows = [
        {"key": part.key, "holder": holder, "position": number, "length": part.length}
        for number, part in enumerate(held, position)
    ]
    if rows:
        await tx.execute(insert(parts), rows)


async def parts_of(connection: AsyncConnection, holder: str) -> list[SourcePart]:
    """The objects that somebody holds, in order."""
    rows = await connection.execute(select(parts).where(parts.c.holder == holder).order_by(parts.c.position))
    return [SourcePart(row.key, row.length) for row in rows]


async def last_part(connection: AsyncConnection, holder: str) -> tuple[int, SourcePart | None]:
    """How many objects somebody holds, and the last of them."""
    query = select(parts).where(parts.c.holder == holder).order_by(parts.c.position.desc()).limit(1)
    row = (await connection.execute(query)).first()
    return (0, None) if row is None else (row.position + 1, SourcePart(row.key, row.length))


async def hand_over(tx: Transaction, holder: str, to: str, first_position: int) -> int:
    """Give one's objects to another holder, in order, from a position on; how many."""
    held = await parts_of(tx, holder)
    for position, part in enumerate(held, first_position):
        await tx.execute(update(parts).where(parts.c.key == part.key).values(holder=to, position=position))
    return len(held)


async def drop_parts(tx: Transaction, holder: str) -> list[str]:
    """Let go of one's objects, what was sent ahead included; their keys."""
    rows = await tx.execute(delete(parts).where(parts.c.holder == holder).returning(parts.c.key))
    return [row[0] for row in rows] + await drop_ahead(tx, holder)


async def held(connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
    """Those of the keys that somebody holds."""
    rows = await connection.execute(select(parts.c.key).where(parts.c.key.in_(keys)))
    ahead = await connection.execute(select(uploads.c.index_key).where(uploads.c.index_key.in_(keys)))
    return {row[0] for row in (*rows, *ahead)}


async def open_ones(connection: AsyncConnection) -> tuple[int, int]:
    """How many uploads are open, and the bytes that they have announced and not sent yet."""
    left = func.sum(uploads.c.length - uploads.c.offset)
    found = (await connection.execute(select(func.count(), left).where(uploads.c.state == OPEN))).one()
    return int(found[0]), int(found[1] or 0)


async def used_by(connection: AsyncConnection, owner: str) -> int:
    """Bytes that an account has stored or announced."""
    size = func.coalesce(uploads.c.length, uploads.c.offset)
    found = await connection.execute(
        select(func.sum(size)).where(uploads.c.owner == owner, uploads.c.state.in_((OPEN, COMPLETE)))
    )
    return int(found.scalar() or 0)


async def expired(connection: AsyncConnection, now_ms: int, limit: int) -> list[Upload]:
    """Open uploads, and finished partial ones that nobody joined, whose time is over."""
    rows = await connection.execute(
        select(uploads)
        .where(
            (uploads.c.state == OPEN) | ((uploads.c.state == COMPLETE) & uploads.c.partial.is_(True)),
            uploads.c.expires_ms < now_ms,
        )
        .limit(limit)
    )
    return [_upload(row) for row in rows]


async def forget_old(tx: Transaction, before_ms: int) -> None:
    """Forget uploads that expired or were joined long ago."""
    await tx.execute(delete(uploads).where(uploads.c.state.in_((EXPIRED, JOINED)), uploads.c.expires_ms < before_ms))
