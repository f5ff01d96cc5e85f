"""All SQL of schedules."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.runtime.database import Transaction
from streamgate.runtime.tables import schedules


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One kind of periodic work as it last ran in a service; ``error`` None when that succeeded. Times in ms since the epoch."""

    service: str
    name: str
    every_s: float
    runs: int
    failures: int
    started_ms: int
    finished_ms: int
    error: str | None


async def find(connection: AsyncConnection) -> list[Scheduled]:
    """Everything that ever ran, of all services of this database."""
    rows = await connection.execute(select(schedules).order_by(schedules.c.service, schedules.c.name))
    return [Scheduled(**row._mapping) for row in rows]


async def ran(
    tx: Transaction, service: str, name: str, *, every_s: float, started_ms: int, finished_ms: int, error: str | None
) -> None:
    """A run has ended."""
    insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    failed = int(error is not None)
    values = {"every_s": every_s, "started_ms": started_ms, "finished_ms": finished_ms, "error": error}
    statement = insert(schedules).values(service=service, name=name, runs=1, failures=failed, **values)
    again = {**values, "runs": schedules.c.runs + 1, "failures": schedules.c.failures + failed}
    await tx.execute(
        statement.on_conflict_do_update(index_elements=[schedules.c.service, schedules.c.name], set_=again)
    )
