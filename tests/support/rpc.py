"""JSON-RPC servers for tests: ones that answer as they are told to, and one that writes down what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

Answer = Callable[[Any], Any]


def single(body: Any, result: Any) -> dict[str, Any]:
    """The answer object to a request."""
    return {"jsonrpc": "2.0", "id": body["id"], "result": result}


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[str]:
    """A peer, as its URL. ``answer`` gets the request and gives an aiohttp response, or a result.

    It gets a batch as its list, and its own answer is sent as it is then.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        found = answer(body)
        if asyncio.iscoroutine(found):
            found = await found
        if isinstance(found, web.StreamResponse):
            return found
        return web.json_response(found if isinstance(body, list) else single(body, found))

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


class Relay:
    """Passes requests on to a node. ``seen``: their bodies; ``batches`` False: it refuses arrays, as some providers do."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = ""
        self.batches = True
        self.seen: list[Any] = []
        self._node = url
        self._http = http

    def methods(self) -> list[str]:
        """What was asked, a batch as ``[method, …]``, since this was called the last time."""
        found = [f"[{', '.join(i['method'] for i in b)}]" if isinstance(b, list) else b["method"] for b in self.seen]
        self.seen.clear()
        return found

    async def answer(self, body: Any) -> web.Response:
        """The node's answer as it is."""
        self.seen.append(body)
        if isinstance(body, list) and not self.batches:
            return web.json_response({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}})
        async with self._http.post(self._node, json=body) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


@asynccontextmanager
async def relay(url: str) -> AsyncIterator[Relay]:
    """A relay to the node at ``url``."""
    async with aiohttp.ClientSession() as http:
        passing = Relay(url, http)
        async with endpoint(passing.answer) as passing.url:
            yield passing
