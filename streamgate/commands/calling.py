"""Calls of the command line to a running server."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from streamgate.domain.errors import StreamGateError, Unavailable


async def call(
    server: str, key: str, method: str, path: str, *, body: Any = None, query: dict[str, Any] | None = None
) -> Any:
    """The decoded answer of one API call; an error of the tree for a problem document, `Unavailable` for no answer."""
    headers = {"Authorization": f"Bearer {key}"}
    params = {name: str(value) for name, value in (query or {}).items() if value is not None}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
            http.request(method, server.rstrip("/") + path, json=body, params=params, headers=headers) as answer,
        ):
            if answer.status == 204 or not answer.content_length:
                content = None
            elif "json" in answer.content_type:
                content = await answer.json(content_type=None)
            else:
                raise Unavailable(f"{server} answered with {answer.content_type}; is that a StreamGate server?")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{server} does not answer ({type(error).__name__}); is the server running?") from error
    if answer.status >= 400:
        raise StreamGateError.from_problem(
            content if isinstance(content, dict) and "code" in content else {"detail": f"HTTP {answer.status}"}
        )
    return content


def call_now(server: str, key: str, method: str, path: str, **more: Any) -> Any:
    """`call`, from synchronous code."""
    return asyncio.run(call(server, key, method, path, **more))
