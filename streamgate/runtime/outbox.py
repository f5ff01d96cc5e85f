"""The outbox: a fact is a row in the transaction that makes it true, delivered at least once afterwards.

Consumers are made effectively-once by the inbox: a row per (consumer, event) in the transaction of the effect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import structlog
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from streamgate.contracts.declare import is_fact, subject_of
from streamgate.domain.clock import Clock
from streamgate.domain.errors import StreamGateError
from streamgate.domain.identity import Prefix, new_id
from streamgate.ports.bus import Bus, Message
from streamgate.runtime.database import Database, Transaction, after_commit
from streamgate.runtime.tables import inbox, outbox

POLL_S = 2.0
BATCH = 100
LONGEST_BACKOFF_S = 60


class Outbox:
    """The outbox of this database, and its relay to the bus."""

    def __init__(self, database: Database, bus: Bus, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._wake = asyncio.Event()

    async def announce(self, tx: Transaction, fact: msgspec.Struct) -> str:
        """Write a fact (a Struct marked with `contracts.declare.fact`) into the transaction; its event id."""
        if not is_fact(type(fact)):
            raise TypeError(f"{type(fact).__qualname__} is no fact")
        event_id = new_id(Prefix.EVENT)
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        now = self._clock.now_ms()
        await tx.execute(
            insert(outbox).values(
                id=event_id,
                subject=subject_of(fact),
                payload=msgspec.msgpack.encode(fact),
                headers=json.dumps({"request_id": request_id} if request_id else {}),
                created_ms=now,
                next_ms=now,
            )
        )
        after_commit(tx, self._wake.set)
        return event_id

    async def first_time(self, tx: Transaction, consumer: str, event_id: str) -> bool:
        """True once per (consumer, event): write the effect in the same transaction; False: it was done already."""
        dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(inbox).values(consumer=consumer, event_id=event_id, done_ms=self._clock.now_ms())
        done = await tx.execute(statement.on_conflict_do_nothing())
        return bool(done.rowcount == 1)

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Deliver facts to the bus for as long as the block runs: at once after a commit here, and by polling."""
        task = asyncio.create_task(self._relay())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def backlog(self) -> tuple[int, float]:
        """Facts not delivered yet, and the age in seconds of the oldest."""
        async with self._database.read() as connection:
            waiting = select(func.count(), func.min(outbox.c.created_ms)).where(outbox.c.delivered_ms.is_(None))
            row = (await connection.execute(waiting)).one()
        return int(row[0]), 0.0 if row[1] is None else max(0.0, (self._clock.now_ms() - row[1]) / 1000)

    async def deliver(self) -> int:
        """Hand what is due to the bus, oldest first, and mark what was taken; how many were."""
        async with self._database.read() as connection:
            due = (
                await connection.execute(
                    select(outbox)
                    .where(outbox.c.delivered_ms.is_(None), outbox.c.next_ms <= self._clock.now_ms())
                    .order_by(outbox.c.position)
                    .limit(BATCH)
                )
            ).all()
        delivered = 0
        for row in due:
            message = Message(row.subject, row.payload, id=row.id, headers=json.loads(row.headers))
            try:
                await self._bus.publish(message)
            except Exception as error:  # noqa: BLE001 (whatever a consumer raises, its fact is kept and tried again)
                structlog.get_logger().warning("fact not taken", subject=row.subject, event_id=row.id, exc_info=error)
                wait_ms = 1000 * min(LONGEST_BACKOFF_S, 2 ** min(row.attempts, 6))
                values = {"attempts": row.attempts + 1, "next_ms": self._clock.now_ms() + wait_ms}
            else:
                delivered += 1
                values = {"delivered_ms": self._clock.now_ms()}
            async with self._database.write() as tx:
                await tx.execute(update(outbox).where(outbox.c.id == row.id).values(**values))
        return delivered

    async def delete_delivered(self, before_ms: int) -> int:
        """Forget facts delivered, and inbox rows made, before ``before_ms``; how many facts there were."""
        async with self._database.write() as tx:
            done = await tx.execute(delete(outbox).where(outbox.c.delivered_ms < before_ms))
            waiting = select(outbox.c.id)  # a fact that somebody still refuses comes again to those that took it
            await tx.execute(delete(inbox).where(inbox.c.done_ms < before_ms, inbox.c.event_id.not_in(waiting)))
        return int(done.rowcount)

    async def _relay(self) -> None:
        while True:
            self._wake.clear()
            try:
                if await self.deliver() == BATCH:
                    continue
            except StreamGateError as error:
                structlog.get_logger().warning("facts cannot be relayed", reason=error.detail)
            except Exception as error:  # noqa: BLE001 (the relay must outlive whatever goes wrong once)
                structlog.get_logger().error("facts cannot be relayed", exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
