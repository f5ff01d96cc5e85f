"""How answers leave a connection."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any

from tests.support.asgi import listening


async def test_head_and_body_of_an_answer_come_together() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"body"})

    def ask(port: int) -> list[bytes]:
        found = []
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            for _ in range(20):
                line.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                select.select([line], [], [], 30)
                found.append(line.recv(65536))
        return found

    async with listening(app) as port:
        for answer in await asyncio.to_thread(ask, port):
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nbody")


async def test_what_is_written_before_a_pause_does_not_wait_for_what_comes_after_it() -> None:
    further = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await further.wait()
        await send({"type": "http.response.body", "body": b"body"})

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            further.set()
            assert await reader.read() == b"4\r\nbody\r\n0\r\n\r\n"
        writer.close()
