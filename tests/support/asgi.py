"""ASGI apps behind real sockets, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from streamgate.runtime.connection import bounded


@contextlib.asynccontextmanager
async def listening(app: Any, *, port: int = 0) -> AsyncIterator[int]:
    """Serve the app on loopback; the port."""
    config = uvicorn.Config(
        app,
        http=bounded(20.0),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = _Server(config)
    ear = socket.create_server(("127.0.0.1", port))
    serving = asyncio.create_task(server.serve([ear]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield int(ear.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
        ear.close()


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
