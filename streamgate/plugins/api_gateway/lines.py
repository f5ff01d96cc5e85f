"""Connections to services: HTTP/1.1 (RFC 9112), one request at a time on each, kept for the next.

A request is written as it is given, once; nothing is repeated, followed, decoded or added here. An answer is read only as fast as
it is taken, and a request written only as fast as the service takes it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from streamgate.domain.errors import StreamGateError
from streamgate.ports.discovery import Address

Header = tuple[bytes, bytes]

KEPT_S = 15.0
"""A connection that nobody has used for so long is not used again; services keep theirs for longer."""

MOST_HEAD = 64 << 10
"""Most bytes that an answer's status and headers may have, with what was read along with them."""

MOST_HELD = 256 << 10
"""From so many bytes of an answer that nobody has taken no more are read."""

NEXT_ADDRESS_S = 0.25
"""How long one address of a host is tried alone (RFC 8305, Connection Attempt Delay)."""


class LineFailed(ConnectionError):
    """The connection to a service ended in the middle of something, or what came is no HTTP."""


class NotConnected(LineFailed):
    """No connection was made, so nothing was sent."""


class Unanswered(LineFailed):
    """The connection ended before an answer; whether the request was carried out is not known."""


class Lines:
    """Connections by address, as many as there are requests under way; those that are free wait for the next."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        self._free: dict[Address, list[Line]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def to(self, address: Address) -> Line:
        """A connection for one request; it comes back by `back`. Raises `NotConnected`."""
        free = self._free.get(address)
        oldest = self._loop.time() - KEPT_S
        while free:
            line = free.pop()
            if line.is_free and line.free_since > oldest:
                return line
            line.close()
        return await self._connect(address)

    def back(self, line: Line, *, whole: bool) -> None:
        """Its request is over; ``whole``: request and answer are, too. Then it is kept, if the service means to keep it."""
        if not whole or not line.rest():
            line.close()
            return
        line.free_since = self._loop.time()
        self._free.setdefault(line.address, []).append(line)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEPT_S, self._sweep)

    def close(self) -> None:
        """Close those that are free."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for line in (line for free in self._free.values() for line in free):
            line.close()
        self._free.clear()

    def _sweep(self) -> None:
        oldest = self._loop.time() - KEPT_S
        known, self._free = self._free, {}
        for address, free in known.items():
            kept = [line for line in free if line.is_free and line.free_since > oldest]
            for line in free:
                if line not in kept:
                    line.close()
            if kept:
                self._free[address] = kept
        self._sweeping = self._loop.call_later(KEPT_S, self._sweep) if self._free else None

    async def _connect(self, address: Address) -> Line:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                found = await self._loop.getaddrinfo(address.host, address.http_port, type=socket.SOCK_STREAM)
                ear = await start_connection(found, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1)
                ear.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _, line = await self._loop.create_connection(lambda: Line(address), sock=ear)
        except (OSError, TimeoutError) as error:
            raise NotConnected(str(error) or "no connection in time") from error
        return line


class Line(asyncio.Protocol):
    """One connection. `ask`, then `read` until the answer is whole; then it goes `back`."""

    _transport: Any

    def __init__(self, address: Address) -> None:
        self.address = address
        self.free_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._failure: LineFailed | None = None
        self._reading = True
        self._ended = True
        self._sound = True

    @property
    def is_free(self) -> bool:
        """Whether a request may go out on it."""
        return self._ended and self._sound and self._failure is None

    async def ask(self, head: bytes, body: bytes | AsyncIterator[bytes] | None, method: str) -> int:
        """Send a request; the status of its answer, whose ``headers`` are there then. Raises `Unanswered`.

        ``head`` has its empty line, and names the size of the body or that it comes in chunks. The answer may come before
        the whole body is sent; what goes wrong with the body ends the connection.
        """
        self._parser: Any = HttpResponseParser(self)
        self._bodiless = method == "HEAD"
        self.headers: list[Header] = []
        self._status = self._came = self._held = 0
        self._pieces: list[bytes] = []
        self._ended = self._to_the_end = False
        if body is None or isinstance(body, bytes):
            self._transport.write(head + body if body else head)
        else:
            self._transport.write(head)
            chunked = b"\r\ntransfer-encoding: chunked\r\n" in head
            self._sending = self._loop.create_task(self._send(body, chunked=chunked))
        while not self._status:
            if self._failure is not None:
                raise Unanswered(str(self._failure)) from self._failure
            await self._news()
        return self._status

    async def read(self) -> tuple[bytes, bool]:
        """What has come of the answer's body since, and whether it is whole now. Raises `LineFailed`."""
        while not self._pieces and not self._ended:
            if self._failure is not None:
                raise self._failure
            await self._news()
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if not self._reading and self._failure is None:
            self._reading = True
            self._transport.resume_reading()
        return piece, self._ended

    def rest(self) -> bool:
        """The answer was taken; whether another request may follow."""
        return self.is_free and (self._sending is None or self._sending.done())

    def close(self) -> None:
        """End it, whatever is under way."""
        if self._sending is not None:
            self._sending.cancel()
        self._transport.abort()

    async def _news(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: str) -> None:
        if self._failure is None:
            self._failure = LineFailed(why)
        self._transport.abort()
        self._tell()

    async def _send(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        whole = False
        try:
            async for piece in body:
                if self._failure is not None:
                    return
                self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n") if chunked else (piece,))
                if self._writable is not None:
                    await self._writable
            if chunked and self._failure is None:
                self._transport.write(b"0\r\n\r\n")
            whole = True
        except (StreamGateError, OSError):
            # Who reads the body has kept why it did not arrive.
            pass
        finally:
            if not whole:
                # The service must not take what came for the whole.
                self._fail("the body did not arrive")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        if self._ended:
            self._fail("something came that nobody had asked for")
            return
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(f"the answer is no HTTP: {error}")
            return
        if not self._status and self._came > MOST_HEAD:
            self._fail("the answer's headers are too long")
        if self._held > MOST_HELD and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._failure is None:
            if self._to_the_end and exc is None:
                self._ended = True
            self._failure = LineFailed(str(exc) if exc else "the service ended the connection")
        self.resume_writing()
        self._tell()

    # of the parser

    def on_message_begin(self) -> None:
        if self._status:
            self._sound = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._status:
            return
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise LineFailed("nobody had asked for another protocol")
        if status < HTTPStatus.OK:
            self.headers = []
            return
        self._status = status
        self._sound = self._parser.should_keep_alive()
        if self._bodiless:
            self._ended = True
        elif status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            framing = {b"content-length", b"transfer-encoding"}
            self._to_the_end = not any(name in framing for name, _ in self.headers)

    def on_body(self, body: bytes) -> None:
        if self._ended:
            self._sound = False
            return
        self._pieces.append(body)
        self._held += len(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._ended = True
