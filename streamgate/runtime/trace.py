"""What follows a piece of work wherever it goes: the request's id, and its trace context (W3C Trace Context, level 1).

Both are bound in the log's context. They go along in HTTP headers, gRPC metadata, headers of the bus, and rows of jobs and of
the outbox; where the work comes in without them they are made. A traceparent is passed on as it came: no spans are recorded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import structlog

CARRIED = {"request_id": "x-request-id", "traceparent": "traceparent"}
"""Name in the log's context → header that carries it."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}\Z")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,100})?\Z"
)


def request_id(given: str | None) -> str:
    """The caller's own when it is a modest token, else a new one."""
    return given if given is not None and _REQUEST_ID.match(given) else os.urandom(12).hex()


def traceparent(given: str | None) -> str:
    """The caller's own when it is well-formed, else the beginning of a new trace."""
    if given is not None and _TRACEPARENT.match(given):
        return given
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"


def continued(headers: Mapping[str, str]) -> dict[str, str]:
    """Name in the log's context → value, out of what came; what is missing or malformed is made."""
    return {
        "request_id": request_id(headers.get(CARRIED["request_id"])),
        "traceparent": traceparent(headers.get(CARRIED["traceparent"])),
    }


def carried() -> dict[str, str]:
    """Header → value, of the work at hand; empty outside any."""
    context = structlog.contextvars.get_contextvars()
    return {header: str(context[name]) for name, header in CARRIED.items() if name in context}
