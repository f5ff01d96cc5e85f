"""All SQL of the outbox and the inbox."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.runtime.database import Transaction
from streamgate.runtime.tables import inbox, outbox


@dataclass(frozen=True, slots=True)
class FactRow:
    """A fact that is not delivered yet."""

    id: str
    subject: str
    payload: bytes
    headers: str
    attempts: int


async def add(tx: Transaction, now_ms: int, *, event_id: str, subject: str, payload: bytes, headers: str) -> None:
    """A new fact, due at once."""
    await tx.execute(
        insert(outbox).values(
            id=event_id, subject=subject, payload=payload, headers=headers, created_ms=now_ms, next_ms=now_ms
        )
    )


async def due(connection: AsyncConnection, now_ms: int, limit: int) -> list[FactRow]:
    """Facts to be delivered now, in the order they were announced in."""
    columns = (outbox.c.id, outbox.c.subject, outbox.c.payload, outbox.c.headers, outbox.c.attempts)
    waiting = (outbox.c.delivered_ms.is_(None), outbox.c.next_ms <= now_ms)
    found = await connection.execute(select(*columns).where(*waiting).order_by(outbox.c.position).limit(limit))
    return [FactRow(*row) for row in found]


async def delivered(tx: Transaction, event_id: str, now_ms: int) -> None:
    """The bus has it."""
    await tx.execute(update(outbox).where(outbox.c.id == event_id).values(delivered_ms=now_ms))


async def refused(tx: Transaction, event_id: str, next_ms: int) -> None:
    """Try again at ``next_ms``."""
    await tx.execute(
        update(outbox).where(outbox.c.id == event_id).values(attempts=outbox.c.attempts + 1, next_ms=next_ms)
    )


async def backlog(connection: AsyncConnection) -> tuple[int, int | None]:
    """Facts not delivered, and when the oldest of them was announced."""
    waiting = select(func.count(), func.min(outbox.c.created_ms)).where(outbox.c.delivered_ms.is_(None))
    row = (await connection.execute(waiting)).one()
    return int(row[0]), row[1]


async def first_time(tx: Transaction, consumer: str, event_id: str, now_ms: int) -> bool:
    """Note that the consumer had the event; False when that is noted already."""
    dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
    note = dialect.insert(inbox).values(consumer=consumer, event_id=event_id, done_ms=now_ms)
    done = await tx.execute(note.on_conflict_do_nothing())
    return bool(done.rowcount == 1)


async def delete_delivered(tx: Transaction, before_ms: int) -> int:
    """Forget facts delivered, and notes made, before ``before_ms``; how many facts there were. The notes of a fact that
    somebody still refuses are kept, for it comes again to those that took it."""
    done = await tx.execute(delete(outbox).where(outbox.c.delivered_ms < before_ms))
    await tx.execute(delete(inbox).where(inbox.c.done_ms < before_ms, inbox.c.event_id.not_in(select(outbox.c.id))))
    return int(done.rowcount)
