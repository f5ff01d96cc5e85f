"""The part of Consul's HTTP API (v1) that discovery uses, with Consul's own rules; a Consul binary cannot be had.

Registration and health checks of an agent, blocking queries with an index, members of JSON objects read without regard to case
as Go reads them. ``test_fake_consul.py`` holds it against a client that others wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.server import free_port

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A duration of Go, such as ``1m30s``."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    assert "".join(number + unit for number, unit in parts) == text, text
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _lower(value: Any) -> Any:
    """Objects with the names of their members in lower case, except those of ``Meta``."""
    if isinstance(value, dict):
        return {k.lower(): v if k.lower() == "meta" else _lower(v) for k, v in value.items()}
    return [_lower(item) for item in value] if isinstance(value, list) else value


class Consul:
    """One agent. It runs in a thread of its own and can be stopped and started on its port."""

    def __init__(self, token: str | None = None) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.queries: list[dict[str, str]] = []
        self.check_every_s: float | None = None
        """Instead of the intervals of the registrations, which are too long for a test."""
        self._token = token
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.forget()

    def forget(self) -> None:
        """Lose all state, as a server without a disk does when it starts."""
        self.index = 10
        self.services: dict[str, dict[str, Any]] = {}
        self.status: dict[str, str] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin to answer."""
        self._call(self._start())

    def stop(self) -> None:
        """End at once; blocking queries break off."""
        self._call(self._stop())

    def close(self) -> None:
        """End for good."""
        if self._runner is not None:
            self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def fail(self, key: str, status: str = "critical") -> None:
        """As a health check that finds out."""

        async def change() -> None:
            self._mark(key, status)

        self._call(change())

    def registered(self, name: str) -> list[dict[str, Any]]:
        """What was registered under a name, members in lower case."""
        return [service for service in self.services.values() if service["name"] == name]

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._authorized])
        app.router.add_put("/v1/agent/service/register", self._register)
        app.router.add_put("/v1/agent/service/deregister/{key}", self._deregister)
        app.router.add_get("/v1/agent/service/{key}", self._one)
        app.router.add_get("/v1/agent/services", self._all)
        app.router.add_get("/v1/health/service/{name}", self._health)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        for task in self._checks.values():
            task.cancel()
        await self._runner.cleanup()
        self._runner = None

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self._token is not None and request.headers.get("X-Consul-Token") != self._token:
            return web.Response(status=403, text="Permission denied")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _register(self, request: web.Request) -> web.Response:
        wanted = _lower(json.loads(await request.text()))
        if not wanted.get("name"):
            return web.Response(status=400, text="Missing service name")
        key = wanted.setdefault("id", wanted["name"])
        self.services[key] = wanted
        checks = [*(wanted.get("checks") or ()), *([wanted["check"]] if wanted.get("check") else ())]
        self.status.setdefault(key, (checks[0].get("status") or "critical") if checks else "passing")
        if key in self._checks:
            self._checks.pop(key).cancel()
        if checks and "http" in checks[0]:
            assert seconds(checks[0]["interval"]) > 0
            self._checks[key] = asyncio.create_task(self._checking(key, checks[0]))
        self._change()
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key not in self.services:
            return web.Response(status=404, text=f'Unknown service ID "{key}". Ensure that the service ID is passed')
        del self.services[key], self.status[key]
        if key in self._checks:
            self._checks.pop(key).cancel()
        self._change()
        return web.Response()

    async def _one(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key not in self.services:
            return web.Response(status=404, text=f"unknown service ID: {key}")
        return web.json_response(_service(self.services[key]))

    async def _all(self, request: web.Request) -> web.Response:
        return web.json_response({key: _service(value) for key, value in self.services.items()})

    async def _health(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        known = int(request.query.get("index", "0"))
        if known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds(request.query.get("wait", "5m"))):
                    while self.index <= known:
                        await self._changed.wait()
        found = [
            {
                "Node": {"Node": "here", "Address": "127.0.0.1"},
                "Service": _service(value),
                "Checks": [{"ServiceID": key, "Status": self.status[key]}],
            }
            for key, value in self.services.items()
            if value["name"] == request.match_info["name"]
            and ("passing" not in request.query or self.status[key] == "passing")
        ]
        return web.json_response(found, headers={"X-Consul-Index": str(self.index)})

    async def _checking(self, key: str, check: dict[str, Any]) -> None:
        timeout = aiohttp.ClientTimeout(total=seconds(check.get("timeout", "10s")))
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await asyncio.sleep(self.check_every_s or seconds(check["interval"]))
                try:
                    async with session.get(check["http"]) as answer:
                        self._mark(key, "passing" if answer.ok else "critical")
                except (aiohttp.ClientError, OSError, TimeoutError):
                    self._mark(key, "critical")

    def _mark(self, key: str, status: str) -> None:
        if self.status[key] != status:
            self.status[key] = status
            self._change()

    def _change(self) -> None:
        self.index += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _service(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "ID": value["id"],
        "Service": value["name"],
        "Address": value.get("address", ""),
        "Port": value.get("port", 0),
        "Meta": value.get("meta") or {},
        "Tags": value.get("tags") or [],
    }


@contextlib.contextmanager
def consul(token: str | None = None) -> Iterator[Consul]:
    """An agent that answers, ended afterwards."""
    agent = Consul(token)
    agent.start()
    try:
        yield agent
    finally:
        agent.close()
