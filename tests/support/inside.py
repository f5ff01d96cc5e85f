"""Looking into what a running product keeps: rows of its database and objects of its store, whichever they are."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.config import Config
from botocore.session import get_session
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.support.server import Server


def rows(server: Server, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """What a query with ``:name`` places finds in its database."""
    url = server.settings.get("database.url", f"sqlite+aiosqlite:///{server.data_dir}/streamgate.db")

    async def ask() -> list[tuple[Any, ...]]:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            found = [tuple(row) for row in await connection.execute(text(query), values)]
        await engine.dispose()
        return found

    # In a thread of its own: tests may have a loop that runs.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


def keys(server: Server, prefix: str) -> list[str]:
    """The keys of its objects below a prefix, ascending."""
    if (told := _bucket(server)) is None:
        folder = server.data_dir / "objects"
        return sorted(str(found.relative_to(folder)) for found in (folder / prefix).rglob("*") if found.is_file())
    pages = (
        _client(told).get_paginator("list_objects_v2").paginate(Bucket=told["bucket"], Prefix=f"{prefix.rstrip('/')}/")
    )
    return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))


def content(server: Server, key: str) -> bytes:
    """The bytes of an object."""
    if (told := _bucket(server)) is None:
        return (server.data_dir / "objects" / key).read_bytes()
    found: bytes = _client(told).get_object(Bucket=told["bucket"], Key=key)["Body"].read()
    return found


def lose(server: Server, prefix: str) -> None:
    """Take away the objects below a prefix, or the one of that key, as when a disk is lost."""
    if (told := _bucket(server)) is None:
        place = server.data_dir / "objects" / prefix
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        return
    for key in keys(server, prefix) or [prefix]:
        _client(told).delete_object(Bucket=told["bucket"], Key=key)


def _bucket(server: Server) -> dict[str, Any] | None:
    found: dict[str, Any] | None = server.settings.get("storage.s3")
    return found


def _client(told: dict[str, Any]) -> Any:
    return get_session().create_client(
        "s3",
        endpoint_url=told["endpoint"],
        aws_access_key_id=told["access_key"],
        aws_secret_access_key=told["secret_key"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
