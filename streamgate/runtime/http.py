"""The HTTP edge of a process: one Litestar app for the API, raw ASGI mounts beside it, problem documents for every error.

For plugins (implementation follows in this file):

* `least(role)`: ``@get("/api/v1/assets", opt=least(Role.ANONYMOUS))`` says who may call a route. A route without it stops
  the process at start (deny by default). Anonymous callers below the role get 401, others 403.
* A handler takes the verified caller by a parameter ``caller: Caller``, a body by ``data: SomeStruct`` (msgspec).
* Errors of the tree in `domain.errors` may be raised anywhere; they become ``application/problem+json``.
* `send_problem(scope, send, error, headers)` answers with one from a raw ASGI app.
"""

from __future__ import annotations

from typing import Any

from streamgate.domain.errors import StreamGateError
from streamgate.domain.identity import Role


def least(role: Role, *, summary: str | None = None) -> dict[str, Any]:
    """The ``opt`` of a route handler that is open to callers of at least this role."""
    return {"least": role}


async def send_problem(scope: Any, send: Any, error: StreamGateError, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer a raw ASGI request with the problem document of ``error`` (RFC 9457)."""
    raise NotImplementedError
