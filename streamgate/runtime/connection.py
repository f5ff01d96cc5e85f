"""One HTTP connection: bounded before there is a request, and answered at once where an answer lies ready.

* The server library bounds neither how long headers may be nor how long they may take: without that a stranger's headers may
  grow for ever, or never end.
* What an app writes in one turn of the event loop, as an answer's head and its body, leaves together: one packet for what
  is small, and whoever waits is woken once.
* A plain GET (one whole request, no body, nothing conditional) below a prefix with an ``at_once`` hook is answered from
  memory before a request object, a task and an ASGI scope exist for it. Whatever is unusual about it takes the longer way.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamgate.domain.errors import MethodNotAllowed, PayloadTooLarge, StreamGateError, ValidationFailed
from streamgate.runtime import problems

MAX_HEADERS = 64 << 10
"""Most bytes that request line and headers may have together; what was read beyond them with the same packet is not counted."""


MOST_AT_ONCE = 4096
"""Longest request, in bytes, that is looked at for an answer at once."""

AtOnce = Callable[[bytes], "tuple[bytes, bytes] | None"]
"""Path (as it stands in the request line) → head of the answer without its empty line, and body; None for the longer way."""

_UNUSUAL = re.compile(
    rb"\r\n(?:[ \t]|range|if-|transfer-encoding|content-length|expect|upgrade|te\b|trailer|x-http-method"
    rb"|connection(?!:[ \t]*keep-alive\r\n))|[^\r]\n|\r[^\n]|\0",
    re.IGNORECASE,
)
_GIVEN_ID = re.compile(rb"\r\nx-request-id:[ \t]*(?:([A-Za-z0-9._-]{8,64})\r\n)?", re.IGNORECASE)
"""The first ``X-Request-Id``; its group is empty unless that is one which `trace.request_id` keeps."""
_REQUEST_LINE = re.compile(
    rb"(?!(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|TRACE|CONNECT) )[A-Z-]{1,20} [^ ]+ HTTP/1\.1\r\n"
)
_END = b"\r\n\r\n"


def bounded(header_timeout_s: float, hooks: Mapping[bytes, AtOnce] | None = None) -> type[HttpToolsProtocol]:
    """The protocol class of a server whose clients have ``header_timeout_s`` seconds for the headers of a request.

    ``hooks``: path prefix → what may answer at once below it.
    """

    class Bounded(_Connection):
        header_timeout = header_timeout_s
        starts = tuple(b"GET " + prefix for prefix in hooks or ())
        hooked: ClassVar = dict(zip(starts, (hooks or {}).values(), strict=True))

    return Bounded


class _RequestIds:
    """Request ids for answers at once: unpredictable from one process to the next, counted within it."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex().encode()
        self._count = itertools.count()

    def next(self) -> bytes:
        """The next one."""
        return b"%b%08x" % (self._prefix, next(self._count))


_IDS = _RequestIds()


class _Joined:
    """A transport that sends what is written in one turn of the event loop together.

    Only the first piece is ever held, and no longer than until the next one or the end of the turn; so that a writer who is
    faster than the client still learns of it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._let_go)
        else:
            self.writelines((data,))

    def writelines(self, pieces: Iterable[bytes]) -> None:
        held, self._held = self._held, None
        self._transport.writelines(pieces if held is None else (held, *pieces))

    def close(self) -> None:
        self._let_go()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _let_go(self) -> None:
        # The connection may have been lost since.
        if self._held is not None and not self._transport.is_closing():
            self.writelines(())


class _Connection(HttpToolsProtocol):
    header_timeout: float = 20.0
    starts: tuple[bytes, ...] = ()
    hooked: ClassVar[Mapping[bytes, AtOnce]] = {}

    _at_once_at = 0.0
    _between_requests = True
    _in_headers = False
    _received = 0
    _first = b""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))

    def data_received(self, data: bytes) -> None:
        if self._between_requests:
            if self.starts and data.startswith(self.starts) and self._answer_at_once(data):
                return
            self._expect_headers()
            self._first = data[:MOST_AT_ONCE]
        super().data_received(data)
        if self._in_headers:
            self._received += len(data)
            if self._received > MAX_HEADERS:
                self._refuse(PayloadTooLarge(f"The request's headers have more than {MAX_HEADERS} bytes."))

    def _answer_at_once(self, data: bytes) -> bool:
        """Answer a whole plain GET if that is possible now; False has changed nothing."""
        if len(data) > MOST_AT_ONCE or not data.endswith(_END) or data.find(_END) != len(data) - 4:
            return False
        if self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete):
            return False
        end = data.find(b" HTTP/1.1\r\n")
        if end < 0 or data.find(b"\r") < end or _UNUSUAL.search(data, end) is not None:
            return False
        hook = next(hook for start, hook in self.hooked.items() if data.startswith(start))
        found = hook(data[4:end])
        if found is None:
            return False
        head, body = found
        date = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        given = _GIVEN_ID.search(data, end)
        request_id = (given and given[1]) or _IDS.next()
        self.transport.writelines((b"%b%bx-request-id: %b%b" % (head, date, request_id, _END), body))
        self._at_once_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._await_another(self.timeout_keep_alive)
        return True

    def _await_another(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long; but answers at once do not wind the clock, so the time since the last one is looked at."""
        left = self._at_once_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._await_another(left)
        else:
            super().timeout_keep_alive_handler()

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
        """What is no HTTP is answered with a problem document too; so is a method that the parser has never heard of."""
        if _REQUEST_LINE.match(self._first):
            self._refuse(MethodNotAllowed("This address does not take that method."))
        else:
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
