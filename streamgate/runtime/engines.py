"""The engines under `runtime.database`: how each database is opened, and what its errors mean."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from streamgate.domain.errors import ConfigurationError, InsufficientStorage, StreamGateError, Unavailable

TURN_S = 30.0
"""How long a statement waits for a connection, or SQLite's write lock, before the database counts as unavailable."""

CONNECT_S = 5.0
"""Seconds that PostgreSQL has to take a connection."""

ANSWER_S = 10.0
"""Seconds that PostgreSQL has to answer a statement. A line that is dead without saying so is found out by nothing else."""

PING_S = 1.5
"""Seconds that it has to answer on a connection that is taken up again; when it does not, all older ones are given up."""

IDLE_S = 60
"""Seconds after which PostgreSQL ends a transaction whose client says nothing, so that its locks do not outlive a dead line."""

_AWAY = frozenset({"08", "40", "53", "57"})
"""Classes of SQLSTATE (PostgreSQL, appendix A) after which the same transaction may work later: the connection or the server
went away, another transaction was in the way, there is no room, an operator intervened."""

_DISK_FULL = "53100"


def engines(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine that writes and the one that reads; on PostgreSQL they are the same."""
    if backend_of(url) == "sqlite":
        return _sqlite(url)
    engine = _postgresql(url)
    return engine, engine


def backend_of(url: str) -> str:
    """``sqlite`` or ``postgresql``; `ConfigurationError` for a URL of anything else, or none."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:
        raise ConfigurationError("database.url is no SQLAlchemy URL, such as sqlite+aiosqlite:///path.") from None
    if backend not in {"sqlite", "postgresql"}:
        raise ConfigurationError(f"database.url names {backend!r}; it must be sqlite+aiosqlite or postgresql+asyncpg.")
    return backend


def meaning(error: BaseException) -> StreamGateError | None:
    """What a driver's error is in the tree of errors; None for what is no fault of the database."""
    if isinstance(error, OperationalError) and getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
        message = str(error.orig).lower()
        if "disk is full" in message or "disk i/o error" in message:
            return InsufficientStorage("The database's disk is full.")
        return Unavailable("The database does not answer.", retry_after=2)
    if isinstance(error, ConnectionError):
        return Unavailable("The database does not answer.", retry_after=2)
    if isinstance(error, DBAPIError) and (state := getattr(error.orig, "sqlstate", None)) is not None:
        if state == _DISK_FULL:
            return InsufficientStorage("The database's disk is full.")
        if state[:2] in _AWAY:
            return Unavailable("The database does not answer.", retry_after=2)
    if isinstance(error, PoolTimeout):
        return Unavailable("The database is too busy.", retry_after=2)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Unavailable("The connection to the database was lost.", retry_after=2)
    return None


def _postgresql(url: str) -> AsyncEngine:
    """Every wait for the server has an end."""
    told = {"timeout": CONNECT_S, "command_timeout": ANSWER_S, "async_creator_fn": _connected}
    engine = create_async_engine(
        url, pool_size=10, max_overflow=10, pool_timeout=TURN_S, pool_pre_ping=True, connect_args=told
    )
    engine.sync_engine.dialect.do_ping = _answers  # type: ignore[method-assign,assignment]

    @event.listens_for(engine.sync_engine, "handle_error")
    def on_error(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, TimeoutError):
            context.is_disconnect = True
            raise Unavailable("The database does not answer.", retry_after=2)

    return engine


async def _connected(*where: Any, **told: Any) -> Any:
    """A new connection; `ConnectionError` for whatever keeps it from being made."""
    import asyncpg

    connection = None
    try:
        connection = await asyncpg.connect(*where, **told)
        await connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")
    except OSError as error:
        if connection is not None:
            connection.terminate()
        raise ConnectionError("PostgreSQL cannot be reached") from error
    return connection


def _answers(connection: Any) -> bool:
    """Whether the server answers on this connection, soon."""
    import asyncpg

    try:
        connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=PING_S))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False
    return True


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
