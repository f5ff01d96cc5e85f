"""The way of a request inside a process: health and metrics, raw mounts, and the API for everything else."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from streamgate.domain.errors import Forbidden, MethodNotAllowed, StreamGateError
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.runtime.health import HealthBoard, worst
from streamgate.runtime.http import Authenticates
from streamgate.runtime.problems import send_problem
from streamgate.runtime.telemetry import Metrics

ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class Dispatch:
    """Answers ``/health*`` and ``/metrics`` itself and hands everything else to a mount (by prefix) or the API.

    ``is_monitor``: whether an ``Authorization`` is the monitor's, who passes what it is told on to administrators alone.
    """

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
        is_monitor: Callable[[str | None], bool] = lambda _: False,
    ) -> None:
        self._api = api
        self._mounts = sorted(mounts.items(), key=lambda item: -len(item[0]))
        self._authenticator = authenticator
        self._board = board
        self._metrics = metrics
        self._metrics_token = metrics_token
        self._is_ready = is_ready
        self._is_monitor = is_monitor
        self._own: dict[str, ASGI] = {
            "/health": self._health,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._exposition,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        for prefix, mount in self._mounts:
            if path.startswith(prefix):
                scope["path_template"] = prefix
                await mount(scope, receive, send)
                return
        own = self._own.get(path)
        if own is None:
            await self._api(scope, receive, send)
            return
        scope["path_template"] = path
        try:
            await own(scope, receive, send)
        except StreamGateError as error:
            await send_problem(scope, send, error)

    async def _caller(self, scope: Any) -> Caller:
        try:
            return await self._authenticator.caller(header(scope, b"authorization"))
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
        whole = self._is_monitor(header(scope, b"authorization")) or (await self._caller(scope)).role is Role.ADMIN
        for name, check in checks.items():
            shown = {"detail": check.detail, "values": dict(check.values)} if whole else {"detail": ""}
            body["checks"][name] = {"status": check.status, **shown}
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
        proxied = header(scope, b"x-forwarded-for") or header(scope, b"forwarded")
        if client and client[0] in {"127.0.0.1", "::1"} and not proxied:
            return True
        credential = header(scope, b"authorization") or ""
        if self._metrics_token and hmac.compare_digest(credential.encode(), f"Bearer {self._metrics_token}".encode()):
            return True
        return (await self._caller(scope)).role is Role.ADMIN


def header(scope: Any, name: bytes) -> str | None:
    """The first header of that name (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


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
