"""Problem documents (RFC 9457): how an error of the tree looks over HTTP."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from streamgate.domain.errors import BY_CODE, FieldError, StreamGateError

STATUS: dict[str, int] = {
    "unauthenticated": 401,
    "forbidden": 403,
    "not_entitled": 403,
    "payment_required": 402,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "precondition_failed": 412,
    "seat_in_use": 409,
    "too_many_streams": 409,
    "session_expired": 403,
    "session_revoked": 403,
    "entitlement_lost": 403,
    "chain_unavailable": 503,
    "rate_limited": 429,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "validation_failed": 422,
    "offset_conflict": 409,
    "checksum_mismatch": 460,
    "upload_expired": 410,
    "idempotency_conflict": 409,
    "insufficient_storage": 507,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "internal": 500,
}
"""Problem code → HTTP status. Every code has exactly one."""

CONTENT_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is no success. ``type`` is a URN of the code; ``errors`` point into the input."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[FieldError, ...] = ()


def problem_type(code: str) -> str:
    """The ``type`` member of a code's problem documents."""
    return f"urn:streamgate:problem:{code}"


def title(code: str) -> str:
    """The ``title`` member: the code as words."""
    return code.replace("_", " ").capitalize()


def document(error: StreamGateError, request_id: str) -> tuple[int, bytes]:
    """Status and JSON body of an error's problem document; the error's ``extra`` members stand beside the standard ones."""
    status = STATUS[error.code]
    problem = Problem(
        type=problem_type(error.code),
        title=title(error.code),
        status=status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        errors=error.errors,
    )
    members: dict[str, Any] = {**msgspec.to_builtins(error.extra), **msgspec.to_builtins(problem)}
    return status, msgspec.json.encode(members)


def headers(error: StreamGateError, length: int) -> list[tuple[bytes, bytes]]:
    """Headers that go with a problem document: never stored, and when or how to come again."""
    found = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"no-store"),
    ]
    if error.retry_after is not None:
        found.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    elif STATUS[error.code] in {429, 503}:
        found.append((b"retry-after", b"2"))
    if error.code == "unauthenticated":
        found.append((b"www-authenticate", b"Bearer"))
    return found


async def send_problem(
    scope: Any, send: Any, error: StreamGateError, extra_headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer a raw ASGI request with the problem document of ``error``; a HEAD request gets its headers alone."""
    request_id = str(scope.get("state", {}).get("request_id", ""))
    status, body = document(error, request_id)
    sent = headers(error, len(body)) + (extra_headers or [])
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


assert set(STATUS) == set(BY_CODE), "every problem code has one status"
