"""Errors over gRPC: one status for every code, the rest as ``google.rpc.Status`` in ``grpc-status-details-bin``."""

from __future__ import annotations

from typing import Any

import msgspec

from streamgate.domain.errors import FieldError, StreamGateError
from streamgate.runtime.problems import title

STATUS: dict[str, str] = {
    "unauthenticated": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_entitled": "PERMISSION_DENIED",
    "payment_required": "PERMISSION_DENIED",
    "session_expired": "PERMISSION_DENIED",
    "session_revoked": "PERMISSION_DENIED",
    "entitlement_lost": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "method_not_allowed": "UNIMPLEMENTED",
    "conflict": "FAILED_PRECONDITION",
    "offset_conflict": "ABORTED",
    "seat_in_use": "RESOURCE_EXHAUSTED",
    "too_many_streams": "RESOURCE_EXHAUSTED",
    "idempotency_conflict": "ABORTED",
    "precondition_failed": "FAILED_PRECONDITION",
    "validation_failed": "INVALID_ARGUMENT",
    "checksum_mismatch": "DATA_LOSS",
    "payload_too_large": "OUT_OF_RANGE",
    "unsupported_media_type": "INVALID_ARGUMENT",
    "upload_expired": "NOT_FOUND",
    "rate_limited": "RESOURCE_EXHAUSTED",
    "insufficient_storage": "RESOURCE_EXHAUSTED",
    "unavailable": "UNAVAILABLE",
    "chain_unavailable": "UNAVAILABLE",
    "deadline_exceeded": "DEADLINE_EXCEEDED",
    "internal": "INTERNAL",
}
"""Code → name of the gRPC status. Every code has exactly one; the code itself travels in `Problem`."""

MOST_EXTRA = 24_000
"""Characters of ``extra`` that travel; more does not fit the trailers of a call and is left out."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the tree. ``retry_after``: seconds; ``extra``: further members, such as the leaves of a policy."""

    code: str
    title: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    retry_after: float | None = None
    extra: dict[str, Any] | None = None


def problem_of(error: StreamGateError) -> Problem:
    """What is sent of an error."""
    plain = msgspec.to_builtins(error.extra)
    fits = len(msgspec.json.encode(plain)) <= MOST_EXTRA
    return Problem(
        code=error.code,
        title=title(error.code),
        detail=error.detail,
        errors=error.errors,
        retry_after=error.retry_after,
        extra=plain if plain and fits else None,
    )


def error_of(problem: Problem) -> StreamGateError:
    """The error that was sent."""
    return StreamGateError.from_wire(
        {
            "code": problem.code,
            "detail": problem.detail,
            "errors": [[item.pointer, item.detail] for item in problem.errors],
            "retry_after": problem.retry_after,
            "extra": problem.extra,
        }
    )
