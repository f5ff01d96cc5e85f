"""Bringing a database's tables up to date, forwards and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from streamgate.domain.errors import ConfigurationError
from streamgate.runtime.engines import backend_of, prepare_sqlite


def folder() -> Path:
    """Where the migrations lie: in the checkout, else packaged."""
    here = Path(__file__).resolve().parent.parent
    for candidate in (here.parent / "migrations", here / "_migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise ConfigurationError("The migrations are missing from this installation.")


def head() -> str:
    """The newest revision. Revisions are numbered files, one line from first to last."""
    return max(path.name.partition("_")[0] for path in (folder() / "versions").glob("[0-9]*.py"))


async def current(url: str) -> str | None:
    """The revision that the database is at; None for an empty one."""

    def read(connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return version

    found: str | None = await _on(url, read)
    return found


async def pending(url: str) -> bool:
    """Whether `migrate` would change anything."""
    return await current(url) != head()


async def migrate(url: str, revision: str = "head") -> None:
    """Bring the tables up to ``revision``; what is already there is left alone."""
    await _run(url, "upgrade", revision)


async def downgrade(url: str, revision: str) -> None:
    """Take the tables back to ``revision`` (``base``: none of them)."""
    await _run(url, "downgrade", revision)


async def _run(url: str, command_name: str, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(folder()).replace("%", "%%"))
        config.attributes["connection"] = connection
        getattr(command, command_name)(config, revision)
        connection.commit()

    await _on(url, run)


async def _on(url: str, work: Callable[[Connection], Any]) -> Any:
    backend = backend_of(url)
    engine = create_async_engine(url)
    if backend == "sqlite":
        prepare_sqlite(engine, "BEGIN IMMEDIATE")  # so that a migration that is cut short leaves nothing behind
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    except OperationalError as error:
        raise ConfigurationError(f"The database cannot be opened: {error.orig}.") from error
    except (OSError, TimeoutError) as error:
        raise ConfigurationError(
            f"The database does not answer ({type(error).__name__}); check database.url."
        ) from error
    finally:
        await engine.dispose()
