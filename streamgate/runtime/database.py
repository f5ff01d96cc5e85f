"""The database: one writer at a time on SQLite, many on PostgreSQL, the same SQLAlchemy Core statements on both.

Times are stored as integer milliseconds since the epoch in columns named ``…_ms``. Structured values are stored as JSON
text or msgpack bytes by the store that owns them. There are no foreign keys across owners.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

from streamgate.domain.errors import Unavailable
from streamgate.runtime.deferred import Deferred

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from streamgate.runtime import engines
else:
    sqlalchemy = Deferred("sqlalchemy")
    engines = Deferred("streamgate.runtime.engines")

Transaction: TypeAlias = "AsyncConnection"
"""A connection inside a transaction; what is done on it is kept or lost as one."""

_AFTER_COMMIT = "streamgate_after_commit"


class Database:
    """Made by `open_database`. Every statement runs in a transaction of `read` or `write`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self.dialect: Literal["sqlite", "postgresql"] = writer.dialect.name  # type: ignore[assignment]

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one consistent state; what it writes is rolled back.

        `Unavailable` when the database does not answer.
        """
        with _translated():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """A transaction, committed (durably) when the block ends and rolled back when it raises.

        On SQLite it holds the one write lock from its first moment (BEGIN IMMEDIATE): keep it short, and never wait for
        anything else inside. `Unavailable` when the database does not answer, `InsufficientStorage` when its disk is full.
        """
        with _translated():
            async with self._writer.begin() as connection:
                callbacks: list[Callable[[], None]] = []
                connection.info[_AFTER_COMMIT] = callbacks
                yield connection
        for callback in callbacks:
            callback()

    async def upkeep(self) -> None:
        """What an embedded database needs now and then: fresh statistics for its planner, and a short write-ahead log.

        Nothing on PostgreSQL, which does this by itself.
        """
        if self.dialect != "sqlite":
            return
        with _translated():
            async with self._writer.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(sqlalchemy.text("PRAGMA optimize"))
                await connection.execute(sqlalchemy.text("PRAGMA wal_checkpoint(TRUNCATE)"))

    async def healthy(self) -> bool:
        """Whether a statement can be run now."""
        try:
            async with self.read() as connection:
                await connection.execute(sqlalchemy.text("SELECT 1"))
        except Unavailable:
            return False
        return True


def after_commit(tx: Transaction, callback: Callable[[], None]) -> None:
    """Run ``callback`` (which must not raise) once the transaction is committed, and never when it is not.

    For hints only, such as waking whoever waits for the row: a process that dies in between never calls it.
    """
    tx.info[_AFTER_COMMIT].append(callback)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what drivers raise into errors of the tree; anything that is no fault of the database passes."""
    try:
        yield
    except Exception as error:
        meant = engines.meaning(error)
        if meant is None:
            raise
        raise meant from error


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open the database of ``url`` (``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://…``) and close it afterwards."""
    writer, reader = engines.engines(url)
    try:
        yield Database(writer, reader)
    finally:
        await writer.dispose()
        if reader is not writer:
            await reader.dispose()
