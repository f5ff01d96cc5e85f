"""The outbox: a fact is a row in the transaction that makes it true, delivered at least once afterwards.

Consumers are made effectively-once by the inbox: a row per (consumer, event) in the transaction of the effect.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import msgspec

from streamgate.domain.clock import Clock
from streamgate.ports.bus import Bus
from streamgate.runtime.database import Database, Transaction


class Outbox:
    """The outbox of this database, and its relay to the bus."""

    def __init__(self, database: Database, bus: Bus, clock: Clock) -> None:
        raise NotImplementedError

    async def announce(self, tx: Transaction, fact: msgspec.Struct) -> str:
        """Write a fact (a Struct marked with `contracts.declare.fact`) into the transaction; its event id."""
        raise NotImplementedError

    async def first_time(self, tx: Transaction, consumer: str, event_id: str) -> bool:
        """True once per (consumer, event): write the effect in the same transaction; False: it was done already."""
        raise NotImplementedError

    def relaying(self) -> AbstractAsyncContextManager[None]:
        """Deliver facts to the bus for as long as the block runs: at once after a commit here, and by polling."""
        raise NotImplementedError

    async def backlog(self) -> tuple[int, float]:
        """Facts not delivered yet, and the age in seconds of the oldest."""
        raise NotImplementedError
