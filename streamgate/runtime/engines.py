"""The engines under `runtime.database`: how each database is opened, and what its errors mean."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from streamgate.domain.errors import ConfigurationError, InsufficientStorage, StreamGateError, Unavailable

TURN_S = 30.0
"""How long a statement waits for a connection, or SQLite's write lock, before the database counts as unavailable."""


_AWAY = frozenset({"08", "40", "53", "57"})
"""Classes of SQLSTATE (PostgreSQL, appendix A) after which the same transaction may work later: the connection or the server
went away, another transaction was in the way, there is no room, an operator intervened."""

_DISK_FULL = "53100"


def engines(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine that writes and the one that reads; on PostgreSQL they are the same."""
    if backend_of(url) == "sqlite":
        return _sqlite(url)
    engine = create_async_engine(url, pool_size=10, max_overflow=10, pool_timeout=TURN_S, pool_pre_ping=True)
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
