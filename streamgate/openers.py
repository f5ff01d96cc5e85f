"""What a process opens for its plugins: database, bus, storage, chains and the rest. The only file that knows every adapter."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ConfigurationError
from streamgate.kernel import Plugin
from streamgate.runtime.site import Site, service_ports
from streamgate.settings import CoreSettings


@dataclass
class Opening:
    """What openers work with: the settings, who we are, and what is open already, by dotted name."""

    settings: CoreSettings
    site: Site
    clock: Clock
    draining: asyncio.Event
    embedded: bool
    stack: AsyncExitStack
    opened: dict[str, Any] = field(default_factory=dict)


def database_url(settings: CoreSettings) -> str:
    """The configured database, or the embedded one in the data directory."""
    if settings.database.url is not None:
        return settings.database.url.get_secret_value()
    return f"sqlite+aiosqlite:///{settings.data_dir.resolve() / 'streamgate.db'}"


async def _open_sandbox(o: Opening) -> Any:
    from streamgate.media.sandbox import Sandbox

    scratch = o.site.data_dir / "scratch"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    return await o.stack.enter_async_context(Sandbox.open(scratch))


async def _open_database(o: Opening) -> Any:
    from streamgate.runtime.database import open_database
    from streamgate.runtime.migrate import migrate, pending

    url = database_url(o.settings)
    if await pending(url):
        if not o.embedded:
            raise ConfigurationError("The database's tables are not up to date; run `streamgate migrate` first.")
        await migrate(url)
    return await o.stack.enter_async_context(open_database(url))


async def _open_bus(o: Opening) -> Any:
    bus = o.settings.bus
    if bus.backend == "nats" and bus.url is not None:
        from streamgate.adapters.bus_nats import NatsBus

        return await o.stack.enter_async_context(NatsBus(bus.url.get_secret_value(), replicas=bus.replicas))
    from streamgate.adapters.bus_memory import MemoryBus

    return await o.stack.enter_async_context(MemoryBus())


async def _redis(o: Opening) -> Any:
    """The process's connections to Redis, opened once; None where there is none."""
    cache = o.settings.cache
    if cache.backend == "redis" and cache.url is not None and REDIS not in o.opened:
        from streamgate.adapters.redis_link import RedisLink

        o.opened[REDIS] = await o.stack.enter_async_context(RedisLink(cache.url.get_secret_value(), o.clock))
    return o.opened.get(REDIS)


async def _open_cache(o: Opening) -> Any:
    from streamgate.adapters.cache_memory import MemoryCache

    memory = MemoryCache(o.settings.cache.memory_bytes, clock=o.clock)
    link = await _redis(o)
    if link is None:
        return memory
    from streamgate.adapters.cache_redis import RedisCache

    return RedisCache(link, memory, clock=o.clock)


async def _open_storage(o: Opening) -> Any:
    if o.settings.storage.s3 is not None and o.settings.storage.backend == "s3":
        from streamgate.adapters.storage_s3 import Bucket, S3BlobStore

        s3, scratch = o.settings.storage.s3, o.site.data_dir / "scratch"
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        bucket = Bucket(
            endpoint=s3.endpoint,
            name=s3.bucket,
            access_key=s3.access_key.get_secret_value(),
            secret_key=s3.secret_key.get_secret_value(),
            region=s3.region,
            public_endpoint=s3.public_endpoint,
            create=s3.create_bucket,
        )
        return await o.stack.enter_async_context(S3BlobStore(bucket, scratch))
    from streamgate.adapters.storage_local import LocalBlobStore

    return LocalBlobStore(o.settings.storage.path or o.site.data_dir / "objects")


async def _open_chains(o: Opening) -> Any:
    if not o.settings.chains:
        from streamgate.adapters.chain_none import NoChains

        return NoChains()
    from streamgate.adapters.chain_jsonrpc import JsonRpcChains

    endpoints = {
        chain: tuple(url.get_secret_value() for url in section.endpoints)
        for chain, section in o.settings.chains.items()
    }
    return await o.stack.enter_async_context(JsonRpcChains(endpoints, o.clock))


async def _open_limiter(o: Opening) -> Any:
    from streamgate.adapters.limiter_memory import MemoryLimiter

    link = await _redis(o)
    if link is None:
        return MemoryLimiter(o.clock)
    from streamgate.adapters.limiter_redis import RedisLimiter

    return RedisLimiter(link, MemoryLimiter(o.clock))


async def _open_discovery(o: Opening) -> Any:
    discovery, itself = o.settings.discovery, o.site.service
    if discovery.backend == "consul" and discovery.consul_address is not None:
        from streamgate.adapters.discovery_consul import ConsulDiscovery

        token = discovery.consul_token.get_secret_value() if discovery.consul_token else None
        consul = ConsulDiscovery(discovery.consul_address, tuple(service_ports()), itself=itself, token=token)
        return await o.stack.enter_async_context(consul)
    if discovery.backend == "dns":
        from streamgate.adapters.discovery_dns import DnsDiscovery

        return DnsDiscovery(discovery.dns_name, service_ports(), itself=itself, clock=o.clock)
    from streamgate.adapters.discovery_static import StaticDiscovery

    return StaticDiscovery(discovery.services, itself=itself)


async def _open_jobs(o: Opening) -> Any:
    from streamgate.runtime.jobs import Jobs

    jobs = Jobs(o.opened[DATABASE], o.opened[BUS], o.clock)
    if o.embedded:
        await jobs.release_all()
    return jobs


async def _open_outbox(o: Opening) -> Any:
    from streamgate.runtime.outbox import Outbox

    return Outbox(o.opened[DATABASE], o.opened[BUS], o.clock)


async def _open_schedules(o: Opening) -> Any:
    from streamgate.runtime.schedules import Schedules

    return Schedules(o.opened[DATABASE], o.clock, o.site.service)


REDIS = "streamgate.adapters.redis_link:RedisLink"
SANDBOX = "streamgate.media.sandbox:Sandbox"
DATABASE = "streamgate.runtime.database:Database"
BUS = "streamgate.ports.bus:Bus"
DISCOVERY = "streamgate.ports.discovery:Discovery"
OBJECTS = "streamgate.ports.storage:BlobStore"
OUTBOX = "streamgate.runtime.outbox:Outbox"

OPENERS: dict[str, tuple[Callable[[Opening], Awaitable[Any]], tuple[str, ...]]] = {
    SANDBOX: (_open_sandbox, ()),
    DATABASE: (_open_database, ()),
    BUS: (_open_bus, ()),
    "streamgate.ports.cache:Cache": (_open_cache, ()),
    OBJECTS: (_open_storage, ()),
    "streamgate.ports.chain:Chains": (_open_chains, ()),
    DISCOVERY: (_open_discovery, ()),
    "streamgate.ports.limiter:Limiter": (_open_limiter, ()),
    "streamgate.runtime.jobs:Jobs": (_open_jobs, (DATABASE, BUS)),
    OUTBOX: (_open_outbox, (DATABASE, BUS)),
    "streamgate.runtime.schedules:Schedules": (_open_schedules, (DATABASE,)),
}
"""What the process can give to plugins: dotted name → how it is opened, and what must be open before. Opened in this order
and only when a plugin requires it; closed in the opposite order."""

EMBEDDED = frozenset({DATABASE})
"""What an embedded process holds for itself alone, so that the data directory must be locked."""


def dotted(kind: type) -> str:
    """``module:Class``, the name by which the table above knows a type."""
    return f"{kind.__module__}:{kind.__qualname__}"


async def given_for(
    plugins: Sequence[Plugin[Any]], opening: Opening, more: Mapping[type, object], also: Sequence[type] = ()
) -> dict[type, object]:
    """Everything that the plugins require of the process, opened; ``also``: what the process itself needs."""
    wanted = {dotted(kind): kind for kind in (*also, *(kind for plugin in plugins for kind in plugin.requires))}
    names = {name for name in wanted if name in OPENERS}
    names |= {before for name in names for before in OPENERS[name][1]}
    if opening.embedded and names & EMBEDDED:
        opening.stack.enter_context(data_directory_lock(opening.site.data_dir))
    given: dict[type, object] = dict(more)

    async def give(name: str, opened: Awaitable[Any]) -> None:
        value = opening.opened[name] = await opened
        module, _, attribute = name.partition(":")
        given[wanted.get(name) or getattr(import_module(module), attribute)] = value

    async with asyncio.TaskGroup() as beside:
        if SANDBOX in names:
            # Another process loads the media library meanwhile; it is started before any secret is read.
            beside.create_task(give(SANDBOX, _open_sandbox(opening)))
            await asyncio.sleep(0)
        for name, (opener, _) in OPENERS.items():
            if name in names and name != SANDBOX:
                await give(name, opener(opening))
    return given


@contextmanager
def data_directory_lock(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process alone; `ConfigurationError` when another one has it."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("a+")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"The data directory {data_dir} cannot be used: {reason}.") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"Another StreamGate uses the data directory {data_dir}.") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
