"""The outermost ASGI app of a process: request ids, the client's address, metrics, access log; nothing escapes it unanswered."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Any

import structlog

from streamgate.domain import deadline
from streamgate.domain.errors import DeadlineExceeded, Internal, StreamGateError
from streamgate.runtime import trace
from streamgate.runtime.clients import Clients
from streamgate.runtime.dispatch import ASGI
from streamgate.runtime.problems import send_problem
from streamgate.runtime.telemetry import Metrics

DEADLINE = b"x-streamgate-deadline"
"""Seconds that are left until the answer must begin: what the gateway says of a request whose body it has whole. It can only
shorten what a request may take, so anybody may send it."""

_SECONDS = re.compile(r"\d{1,3}(?:\.\d{1,6})?\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FRAMING = (b"content-length", b"transfer-encoding")
"""A request with neither has no body (RFC 9112 section 6.3)."""

_LOOKED_AT = frozenset({b"x-request-id", b"traceparent", DEADLINE, *_FRAMING})
_QUIET = ("/health", "/metrics", "/p/")


class Edge:
    """Counts, names and logs every request once, and answers whatever the app lets through as a problem document.

    The app says which route it took by ``scope["path_template"]``.
    """

    def __init__(self, app: ASGI, *, metrics: Metrics, clients: Clients, body_timeout_s: float) -> None:
        self._app = app
        self._metrics = metrics
        self._clients = clients
        self._body_timeout_s = body_timeout_s
        self._log = structlog.get_logger()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        told = _told(scope["headers"])
        following = {
            "request_id": trace.request_id(told.get(b"x-request-id")),
            "traceparent": trace.traceparent(told.get(b"traceparent")),
        }
        scope.setdefault("state", {}).update(following)
        scope["client"] = self._clients.of(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**following)
        arrival = _Arrival(receive, self._body_timeout_s, complete=told.keys().isdisjoint(_FRAMING))
        answer = _Answer(send, following["request_id"], arrival)
        given = told.get(DEADLINE)
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            if given is None or not _SECONDS.match(given):
                await self._app(scope, arrival, answer)
            else:
                async with deadline.within(float(given)) as answer.bound:
                    await self._app(scope, arrival, answer)
        except StreamGateError as error:
            await self._rescue(scope, answer, error)
        except Exception as error:
            self._log.error("unexpected error", path=scope["path"], exc_info=error)
            await self._rescue(scope, answer, Internal("Something went wrong on our side."))
            if not answer.complete:
                raise
        finally:
            self._metrics.in_flight.dec()
            self._account(scope, answer, time.perf_counter() - began)

    async def _rescue(self, scope: Any, answer: _Answer, error: StreamGateError) -> None:
        if not answer.status:
            await send_problem(scope, answer, error)

    def _account(self, scope: Any, answer: _Answer, seconds: float) -> None:
        route = scope.get("path_template") or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        status = answer.status or 499
        self._metrics.answered(method, route, status, seconds, answer.body_bytes)
        quiet = status < 500 and route.startswith(_QUIET)
        (self._log.debug if quiet else self._log.info)(
            "request",
            method=method,
            path=scope["path"],
            route=route,
            status=status,
            bytes=answer.body_bytes,
            ms=round(seconds * 1000, 1),
        )


def _told(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """What a request says of itself: the first header of each name that is looked at here."""
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in _LOOKED_AT and name not in found:
            found[name] = value.decode("latin-1")
    return found


class _Arrival:
    """Passes a request's body on, and ends it when we wait too long for it: ``patience_s``, and a second for each KiB that came.

    ``complete``: there is none. Only waiting counts, not the time in which nobody asks for more; what comes after the body
    is waited for without end.
    """

    __slots__ = ("_came", "_complete", "_patience_s", "_receive", "_waited_s", "given_up")

    def __init__(self, receive: Any, patience_s: float, *, complete: bool = False) -> None:
        self._receive = receive
        self._patience_s = patience_s
        self._waited_s = 0.0
        self._came = 0
        self._complete = complete
        self.given_up = False

    async def __call__(self) -> Any:
        if self._complete:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s + self._came / 1024 - self._waited_s):
                message = await self._receive()
        except TimeoutError:
            self.given_up = True
            raise DeadlineExceeded("The request's body did not arrive in time.") from None
        self._waited_s += time.monotonic() - began
        self._came += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message


class _Answer:
    """Passes an answer on and remembers what was sent; names the request in a header. ``bound``: until when it must begin."""

    def __init__(self, send: Any, request_id: str, arrival: _Arrival) -> None:
        self._send = send
        self._arrival = arrival
        self._request_id = request_id.encode()
        self.status = 0
        self.body_bytes = 0
        self.complete = False
        self.bound: deadline.Deadline | None = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if self.bound is not None:
                self.bound.lift()
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
            if self._arrival.given_up:
                message["headers"].append((b"connection", b"close"))
        elif message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)
