"""The database: one writer at a time on SQLite, many on PostgreSQL, the same SQLAlchemy Core statements on both.

Times are stored as integer milliseconds since the epoch in columns named ``…_ms``. Structured values are stored as JSON
text or msgpack bytes by the store that owns them. There are no foreign keys across owners.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from streamgate.domain.errors import ConfigurationError, InsufficientStorage, Unavailable

Transaction = AsyncConnection
"""A connection inside a transaction; what is done on it is kept or lost as one."""

_AFTER_COMMIT = "streamgate_after_commit"

TURN_S = 30.0
"""How long a statement waits for a connection, or SQLite's write lock, before the database counts as unavailable."""


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

    async def healthy(self) -> bool:
        """Whether a statement can be run now."""
        try:
            async with self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except Unavailable:
            return False
        return True


def after_commit(tx: Transaction, callback: Callable[[], None]) -> None:
    """Run ``callback`` (which must not raise) once the transaction is committed, and never when it is not.

    For hints only, such as waking whoever waits for the row: a process that dies in between never calls it.
    """
    tx.info[_AFTER_COMMIT].append(callback)


class _translated:
    """Turns what drivers raise into errors of the tree; anything that is no fault of the database passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OperationalError):
            message = str(error.orig).lower()
            if "disk is full" in message or "disk i/o error" in message:
                raise InsufficientStorage("The database's disk is full.") from error
            raise Unavailable("The database does not answer.", retry_after=2) from error
        if isinstance(error, PoolTimeout):
            raise Unavailable("The database is too busy.", retry_after=2) from error
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise Unavailable("The connection to the database was lost.", retry_after=2) from error


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Open the database of ``url`` (``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://…``) and close it afterwards."""
    backend = make_url(url).get_backend_name()
    if backend == "sqlite":
        writer, reader = _sqlite(url)
    elif backend == "postgresql":
        writer = reader = create_async_engine(
            url, pool_size=10, max_overflow=10, pool_timeout=TURN_S, pool_pre_ping=True
        )
    else:
        raise ConfigurationError(f"database.url names {backend!r}; it must be sqlite+aiosqlite or postgresql+asyncpg.")
    try:
        yield Database(writer, reader)
    finally:
        await writer.dispose()
        if reader is not writer:
            await reader.dispose()


def _sqlite(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    writer = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=TURN_S)
    reader = create_async_engine(url, pool_size=4, max_overflow=0, pool_timeout=TURN_S)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN DEFERRED")):
        prepare_sqlite(engine, begin)
    return writer, reader


def prepare_sqlite(engine: AsyncEngine, begin: str) -> None:
    """WAL, durable commits, and transactions that we begin ourselves (the driver's own begin is deferred and late)."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={int(TURN_S * 1000)}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-8000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)
