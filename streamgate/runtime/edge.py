"""The outermost ASGI app of a process: request ids, health, metrics, access log, and the way to the API or a raw mount."""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from streamgate.domain.errors import Forbidden, Internal, MethodNotAllowed, StreamGateError
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.runtime.health import HealthBoard, worst
from streamgate.runtime.http import Authenticates
from streamgate.runtime.problems import send_problem
from streamgate.runtime.telemetry import Metrics

ASGI = Callable[[Any, Any, Any], Awaitable[None]]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Edge:
    """Answers ``/health*`` and ``/metrics`` itself and hands everything else on; every request is counted and logged once."""

    def __init__(
        self,
        api: ASGI,
        mounts: Mapping[str, ASGI],
        *,
        authenticator: Authenticates,
        board: HealthBoard,
        metrics: Metrics,
        metrics_token: str | None,
        is_ready: Callable[[], bool],
    ) -> None:
        self._api = api
        self._mounts = sorted(mounts.items(), key=lambda item: -len(item[0]))
        self._authenticator = authenticator
        self._board = board
        self._metrics = metrics
        self._metrics_token = metrics_token
        self._is_ready = is_ready
        self._own: dict[str, ASGI] = {
            "/health": self._health,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._exposition,
        }
        self._log = structlog.get_logger()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        await self._http(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Answer(send, request_id)
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        template: str | None = None
        try:
            app, template = self._way(scope["path"])
            await app(scope, receive, answer)
        except StreamGateError as error:
            await self._rescue(scope, answer, error)
        except Exception as error:
            self._log.error("unexpected error", path=scope["path"], exc_info=error)
            await self._rescue(scope, answer, Internal("Something went wrong on our side."))
            if not answer.complete:
                raise
        finally:
            self._metrics.in_flight.dec()
            self._account(scope, answer, template, time.perf_counter() - began)

    def _way(self, path: str) -> tuple[ASGI, str | None]:
        own = self._own.get(path)
        if own is not None:
            return own, path
        for prefix, app in self._mounts:
            if path.startswith(prefix):
                return app, None
        return self._api, None

    async def _rescue(self, scope: Any, answer: _Answer, error: StreamGateError) -> None:
        if not answer.status:
            await send_problem(scope, answer, error)

    def _account(self, scope: Any, answer: _Answer, template: str | None, seconds: float) -> None:
        mount = next((prefix for prefix, _ in self._mounts if scope["path"].startswith(prefix)), None)
        route = template or scope.get("path_template") or mount or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        status = answer.status or 499
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        self._metrics.sent.labels(route).inc(answer.body_bytes)
        quiet = route.startswith(("/health", "/metrics")) or (mount is not None and status < 500)
        (self._log.debug if quiet else self._log.info)(
            "request",
            method=method,
            path=scope["path"],
            route=route,
            status=status,
            bytes=answer.body_bytes,
            ms=round(seconds * 1000, 1),
        )

    async def _caller(self, scope: Any) -> Caller:
        header = _header(scope, b"authorization")
        try:
            return await self._authenticator.caller(header)
        except StreamGateError:
            return ANONYMOUS

    async def _health(self, scope: Any, receive: Any, send: Any) -> None:
        _only_get(scope)
        checks = await self._board.checks()
        status = worst(checks)
        body: dict[str, Any] = {
            "status": status,
            "service": self._board.service,
            "version": self._board.version,
            "uptime_s": round(self._board.uptime_s, 1),
            "checks": {},
        }
        administrator = (await self._caller(scope)).role is Role.ADMIN
        for name, check in checks.items():
            body["checks"][name] = {"status": check.status, "detail": check.detail if administrator else ""}
        await _json(scope, send, 503 if status == "down" else 200, body)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        _only_get(scope)
        await _json(scope, send, 200, {"status": "ok"})

    async def _ready(self, scope: Any, receive: Any, send: Any) -> None:
        _only_get(scope)
        ready = self._is_ready()
        await _json(scope, send, 200 if ready else 503, {"status": "ok" if ready else "down"})

    async def _exposition(self, scope: Any, receive: Any, send: Any) -> None:
        _only_get(scope)
        if not await self._may_read_metrics(scope):
            raise Forbidden("Metrics are for this machine, for administrators, or with the metrics token.")
        await _respond(scope, send, 200, b"text/plain; version=0.0.4; charset=utf-8", self._metrics.exposition())

    async def _may_read_metrics(self, scope: Any) -> bool:
        """From this machine itself (not through a proxy on it), with the metrics token, or as an administrator."""
        client = scope.get("client")
        proxied = _header(scope, b"x-forwarded-for") or _header(scope, b"forwarded")
        if client and client[0] in {"127.0.0.1", "::1"} and not proxied:
            return True
        header = _header(scope, b"authorization") or ""
        if self._metrics_token and hmac.compare_digest(header.encode(), f"Bearer {self._metrics_token}".encode()):
            return True
        return (await self._caller(scope)).role is Role.ADMIN


class _Answer:
    """Passes an answer on and remembers what was sent; names the request in a header."""

    def __init__(self, send: Any, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status = 0
        self.body_bytes = 0
        self.complete = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
        elif message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)


def _header(scope: Any, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def _request_id(scope: Any) -> str:
    """The caller's own request id when it is a modest token, else a new one."""
    given = _header(scope, b"x-request-id")
    if given and _REQUEST_ID.match(given):
        return given
    return os.urandom(12).hex()


def _only_get(scope: Any) -> None:
    if scope["method"] not in {"GET", "HEAD"}:
        raise MethodNotAllowed("This address takes GET.")


async def _json(scope: Any, send: Any, status: int, value: Any) -> None:
    await _respond(scope, send, status, b"application/json", msgspec.json.encode(value))


async def _respond(scope: Any, send: Any, status: int, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
