"""One HTTP connection, bounded before there is a request: how long its headers may be, and how long they may take.

The server library has no such bounds: without them a stranger's headers may grow for ever, or never end.
"""

from __future__ import annotations

import asyncio
import os

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamgate.domain.errors import PayloadTooLarge, StreamGateError, ValidationFailed
from streamgate.runtime import problems

MAX_HEADERS = 64 << 10
"""Most bytes that request line and headers may have together; what was read beyond them with the same packet is not counted."""


def bounded(header_timeout_s: float) -> type[HttpToolsProtocol]:
    """The protocol class of a server whose clients have ``header_timeout_s`` seconds for the headers of a request."""

    class Bounded(_Connection):
        header_timeout = header_timeout_s

    return Bounded


class _Connection(HttpToolsProtocol):
    header_timeout: float = 20.0

    _between_requests = True
    _in_headers = False
    _received = 0
    _timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._between_requests:
            self._expect_headers()
        super().data_received(data)
        if self._in_headers:
            self._received += len(data)
            if self._received > MAX_HEADERS:
                self._refuse(PayloadTooLarge(f"The request's headers have more than {MAX_HEADERS} bytes."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered with a problem document too."""
        self._refuse(ValidationFailed("The request is not well-formed HTTP/1.1."))

    def _expect_headers(self) -> None:
        self._between_requests, self._in_headers, self._received = False, True, 0
        self._stop_timer()
        self._timer = self.loop.call_later(self.header_timeout, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, error: StreamGateError) -> None:
        self._in_headers = False
        self._stop_timer()
        if self.transport.is_closing():
            return
        request_id = os.urandom(12).hex()
        status, body = problems.document(error, request_id)
        head = [b"HTTP/1.1 %d Refused" % status, b"connection: close", b"x-request-id: " + request_id.encode()]
        head += [name + b": " + value for name, value in problems.headers(error, len(body))]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()
