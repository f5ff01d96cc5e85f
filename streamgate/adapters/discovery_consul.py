"""Services by Consul's HTTP API (v1): blocking queries for the others, a registration with a health check for this process.

https://developer.hashicorp.com/consul/api-docs/features/blocking and …/agent/service.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import structlog

from streamgate.domain.errors import ConfigurationError
from streamgate.ports.discovery import Address, Discovery

NAMES = "streamgate-"
"""Before every service's name in Consul."""

GRPC_PORT = "grpc_port"
"""Where a registration's metadata name the gRPC port."""

INDEX = "X-Consul-Index"
FIRST_ANSWER_S = 2.0
SHORT_S = 5.0
SHORTEST_ROUND_S = 0.1
LONGEST_PAUSE_S = 10.0
LOOK_AFTER_S = 15.0
"""How often a process looks whether its registration is still there."""


class ConsulDiscovery(Discovery):
    """An async context manager. ``address``: ``http(s)://host:port`` or ``host:port`` of a Consul agent.

    Consul may be away, also at the start: the last good list of each service is kept, and registering is tried again. An empty
    answer of a Consul that has lost its state (its index went back) counts only when the next one is empty too. ``wait_s``: how
    long a query may block; also how long such a Consul can go unnoticed.
    """

    def __init__(
        self, address: str, services: Sequence[str], *, itself: str, token: str | None = None, wait_s: float = 30.0
    ) -> None:
        self._base = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
        if not self._base.startswith(("http://", "https://")):
            raise ConfigurationError(f"discovery.consul_address: {address!r} is no http or https address.")
        self._token = token
        self._wait_s = wait_s
        self._names = tuple(sorted(name for name in services if name != itself))
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = True
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        headers = {"X-Consul-Token": self._token} if self._token else None
        self._session = aiohttp.ClientSession(headers=headers, middlewares=(_once,))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def services(self) -> tuple[str, ...]:
        return self._names

    async def addresses(self, service: str) -> tuple[Address, ...]:
        if service not in self._names:
            return ()
        watch = self._watches.get(service)
        if watch is None:
            watch = self._watches[service] = _Watch(service)
            self._start(self._watching(watch))
        if not watch.answered.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_S):
                    await watch.answered.wait()
        return watch.addresses

    async def healthy(self) -> bool:
        return self._answers

    @asynccontextmanager
    async def present(self, service: str, address: Address) -> AsyncIterator[None]:
        name = f"{NAMES}{service}"
        key = f"{name}-{address.host}-{address.http_port}"
        keeping = self._start(self._keeping(registration(name, key, address)))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._ask("PUT", f"/v1/agent/service/deregister/{key}", SHORT_S)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watching(self, watch: _Watch) -> None:
        failures = 0
        while True:
            try:
                await self._round(watch)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                failures += 1
                watch.index = 0
                self._note(error)
                await asyncio.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.25 * 2**failures))  # noqa: S311
                continue
            failures = 0
            self._note(None)
            await asyncio.sleep(SHORTEST_ROUND_S)

    async def _round(self, watch: _Watch) -> None:
        query = {"passing": "1"}
        if watch.index:
            query |= {"index": str(watch.index), "wait": f"{int(self._wait_s * 1000)}ms"}
        # Consul adds up to a sixteenth to the wait, so that not all come back at once.
        path = f"/v1/health/service/{NAMES}{watch.service}"
        answer, index = await self._ask("GET", path, (self._wait_s * 17 / 16 if watch.index else 0) + SHORT_S, query)
        found = tuple(sorted((_address(entry) for entry in answer), key=lambda a: (a.host, a.http_port)))
        # An index that goes back is a Consul that began anew; what was just read is at the new one, so that is where to go on.
        lost = index < watch.highest
        watch.index = watch.highest = index
        if found or not lost:
            watch.addresses = found
        watch.answered.set()

    async def _keeping(self, wanted: dict[str, Any]) -> None:
        failures = 0
        while True:
            try:
                try:
                    await self._ask("GET", f"/v1/agent/service/{wanted['ID']}", SHORT_S)
                except aiohttp.ClientResponseError as error:
                    if error.status != 404:
                        raise
                    await self._ask("PUT", "/v1/agent/service/register", SHORT_S, body=wanted)
                    structlog.get_logger().info("registered with Consul", id=wanted["ID"])
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                failures += 1
                self._note(error)
                await asyncio.sleep(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 0.25 * 2**failures))  # noqa: S311
                continue
            failures = 0
            self._note(None)
            await asyncio.sleep(LOOK_AFTER_S)

    async def _ask(
        self, method: str, path: str, seconds: float, query: dict[str, str] | None = None, body: Any = None
    ) -> tuple[Any, int]:
        """The answer and its index; any status but 200 is an error."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with self._session.request(
            method, self._base + path, params=query, json=body, timeout=timeout, raise_for_status=True
        ) as response:
            text = await response.text()
            answer = await response.json() if method == "GET" else text
            return answer, max(1, int(response.headers.get(INDEX, "1")))

    def _note(self, error: Exception | None) -> None:
        if error is not None and self._answers:
            structlog.get_logger().warning("Consul does not answer", reason=type(error).__name__)
        elif error is None and not self._answers:
            structlog.get_logger().info("Consul answers again")
        self._answers = error is None


class _Watch:
    """What is known of a service. ``index``: where the next query goes on, 0 for at once. ``highest``: of the last answer."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.addresses: tuple[Address, ...] = ()
        self.index = 0
        self.highest = 0
        self.answered = asyncio.Event()


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp sends a GET again when its connection broke; here a new Consul would be asked to wait for the index of an old one."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


def registration(name: str, key: str, address: Address) -> dict[str, Any]:
    """What Consul is told of a process that is ready. Consul asks it every 10 s and drops it a minute after it fell silent."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    return {
        "ID": key,
        "Name": name,
        "Address": address.host,
        "Port": address.http_port,
        "Meta": {GRPC_PORT: str(address.grpc_port)} if address.grpc_port is not None else {},
        "Check": {
            "HTTP": f"http://{host}:{address.http_port}/health/ready",
            "Interval": "10s",
            "Timeout": "2s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m",
        },
    }


def _address(entry: dict[str, Any]) -> Address:
    service = entry["Service"]
    grpc = (service.get("Meta") or {}).get(GRPC_PORT)
    return Address(
        service.get("Address") or entry["Node"]["Address"], int(service["Port"]), int(grpc) if grpc else None
    )
