"""The outbox: a fact is a row in the transaction that makes it true, delivered at least once afterwards.

Consumers are made effectively-once by the inbox: a row per (consumer, event) in the transaction of the effect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from streamgate.contracts.declare import is_fact, subject_of
from streamgate.domain.clock import Clock
from streamgate.domain.errors import StreamGateError
from streamgate.domain.identity import Prefix, new_id
from streamgate.ports.bus import Bus, Message
from streamgate.runtime.database import Database, Transaction, after_commit
from streamgate.runtime.deferred import Deferred
from streamgate.runtime.trace import carried

if TYPE_CHECKING:
    from streamgate.runtime import outboxstore
else:
    outboxstore = Deferred("streamgate.runtime.outboxstore")

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
        """Write a fact (a Struct marked with `contracts.declare.fact`) into the transaction; its event id.

        The request id and the trace context at hand go along.
        """
        if not is_fact(type(fact)):
            raise TypeError(f"{type(fact).__qualname__} is no fact")
        event_id = new_id(Prefix.EVENT)
        await outboxstore.add(
            tx,
            self._clock.now_ms(),
            event_id=event_id,
            subject=subject_of(fact),
            payload=msgspec.msgpack.encode(fact),
            headers=json.dumps(carried()),
        )
        after_commit(tx, self._wake.set)
        return event_id

    async def first_time(self, tx: Transaction, consumer: str, event_id: str) -> bool:
        """True once per (consumer, event): write the effect in the same transaction; False: it was done already."""
        return await outboxstore.first_time(tx, consumer, event_id, self._clock.now_ms())

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Deliver facts to the bus for as long as the block runs: at once after a commit here, and by polling."""
        task = asyncio.create_task(self._relay())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def backlog(self) -> tuple[int, float]:
        """Facts not delivered yet, and the age in seconds of the oldest."""
        async with self._database.read() as connection:
            count, oldest = await outboxstore.backlog(connection)
        return count, 0.0 if oldest is None else max(0.0, (self._clock.now_ms() - oldest) / 1000)

    async def deliver(self) -> int:
        """Hand what is due to the bus, oldest first, and mark what was taken; how many were."""
        async with self._database.read() as connection:
            due = await outboxstore.due(connection, self._clock.now_ms(), BATCH)
        delivered = 0
        for row in due:
            message = Message(row.subject, row.payload, id=row.id, headers=json.loads(row.headers))
            try:
                await self._bus.publish(message)
            except Exception as error:  # noqa: BLE001 (whatever a consumer raises, its fact is kept and tried again)
                structlog.get_logger().warning("fact not taken", subject=row.subject, event_id=row.id, exc_info=error)
                wait_ms = 1000 * min(LONGEST_BACKOFF_S, 2 ** min(row.attempts, 6))
                async with self._database.write() as tx:
                    await outboxstore.refused(tx, row.id, self._clock.now_ms() + wait_ms)
            else:
                async with self._database.write() as tx:
                    await outboxstore.delivered(tx, row.id, self._clock.now_ms())
                delivered += 1
        return delivered

    async def delete_delivered(self, before_ms: int) -> int:
        """Forget facts delivered, and inbox rows made, before ``before_ms``; how many facts there were. Inbox rows of a
        fact that somebody still refuses are kept."""
        async with self._database.write() as tx:
            return await outboxstore.delete_delivered(tx, before_ms)

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
