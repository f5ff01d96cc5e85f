"""The whole distributed product: nine processes on PostgreSQL, Redis, NATS and an object store, all started here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from streamgate.runtime.migrate import migrate
from tests.support.nats import nats_server
from tests.support.nine import Nine, nine
from tests.support.postgres import Postgres
from tests.support.proxy import Proxy
from tests.support.redis import redis_server
from tests.support.seaweed import seaweed


@contextmanager
def distributed(
    database: Postgres,
    folder: Path,
    settings: Mapping[str, Any],
    replicas: Mapping[str, int] | None = None,
    *,
    lines: Mapping[str, Proxy] | None = None,
) -> Iterator[Nine]:
    """The nine services, ready, on servers and a database of their own. ``settings``: what they are told beside those;
    ``replicas``: how many there are of a service where it is not one (see `nine.made`); ``lines``: who reaches NATS through
    a proxy, by name; it is led there.
    """
    name = database.create()
    try:
        asyncio.run(migrate(database.url(name)))
        with ExitStack() as stack:
            folder.mkdir(exist_ok=True)
            (store := folder / "store").mkdir()
            (fast := folder / "redis").mkdir()
            bus = stack.enter_context(nats_server(folder))
            objects = stack.enter_context(seaweed(store))
            redis = stack.enter_context(redis_server(fast))
            told = {
                "database.url": database.url(name),
                "bus.backend": "nats",
                "bus.url": bus.url,
                "cache.backend": "redis",
                "cache.url": redis.url,
                **objects.settings("films"),
                **settings,
            }
            for line in (lines or {}).values():
                line.lead_to(bus.port)
            own = {name: {"bus.url": f"nats://127.0.0.1:{line.port}"} for name, line in (lines or {}).items()}
            services = stack.enter_context(nine(folder / "services", told, replicas, own))
            services.sql = partial(database.sql, database=name)
            yield services
    finally:
        database.drop(name)
