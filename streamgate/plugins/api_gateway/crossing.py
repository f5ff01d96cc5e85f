"""Which headers cross the gateway, in either direction.

Hop-by-hop headers (RFC 9110 section 7.6.1) belong to one connection. What only the gateway may say of a request (who sent
it) is taken out of what came and written anew, so that nobody can say it of himself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamgate.domain.errors import ValidationFailed

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"http2-settings",
    }
)
ONLY_OURS = frozenset(
    {
        b"forwarded",
        b"via",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-original-host",
        b"x-host",
        b"x-request-id",
        b"traceparent",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"host",
    }
)
"""What a service might believe of whoever forwards a request; never taken from a caller. Prefixes of the same kind below."""

ONLY_OURS_PREFIXES = (b"x-forwarded", b"x-streamgate-", b"x-envoy-", b"x-accel-", b"x-sendfile", b"grpc-")

FROM_SERVER = frozenset({b"date", b"server", b"x-request-id"})
"""What the server before the gateway writes itself."""

NEVER_IN = HOP_BY_HOP | ONLY_OURS
NEVER_OUT = HOP_BY_HOP | FROM_SERVER


def inward(scope: Any) -> list[Header]:
    """The headers of a request as the owning service gets them: the caller's, with request id and client address from us.

    ``tracestate`` passes with the ``traceparent`` that it belongs to; where that was missing or malformed a new trace has
    begun. Raises `ValidationFailed` for a value that is not UTF-8.
    """
    given: list[Header] = scope["headers"]
    traceparent = str(scope["state"]["traceparent"]).encode()
    dropped = NEVER_IN | _named(given)
    if [value for name, value in given if name == b"traceparent"] != [traceparent]:
        dropped |= {b"tracestate"}
    kept = [(name, value) for name, value in given if name not in dropped and not name.startswith(ONLY_OURS_PREFIXES)]
    for _, value in kept:
        if not value.isascii():
            _refuse_unless_utf_8(value)
    client = scope.get("client")
    kept += [
        (b"x-request-id", str(scope["state"]["request_id"]).encode()),
        (b"traceparent", traceparent),
        (b"x-forwarded-for", client[0].encode() if client else b"unknown"),
    ]
    return kept


def outward(given: Iterable[Header]) -> list[Header]:
    """The headers of a service's answer, their names in lower case, as the caller gets them."""
    headers = list(given)
    dropped = NEVER_OUT | _named(headers)
    return [(name, value) for name, value in headers if name not in dropped]


def head(method: str, target: bytes, headers: Iterable[Header]) -> bytes:
    """Request line and headers (RFC 9112 sections 3 and 5) with the empty line after them.

    Raises `ValidationFailed` where a part holds the end of a line, which the server that read the request lets nobody send.
    """
    lines = [
        b"%b %b HTTP/1.1" % (method.encode("ascii"), target),
        *(b"%b: %b" % header for header in headers),
        b"",
        b"",
    ]
    whole = b"\r\n".join(lines)
    if not whole.count(b"\n") == whole.count(b"\r") == len(lines) - 1 or b"\0" in whole:
        raise ValidationFailed("A header of the request holds the end of a line.")
    return whole


def _refuse_unless_utf_8(value: bytes) -> None:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValidationFailed("A header of the request is not UTF-8.") from None


def _named(headers: Iterable[Header]) -> frozenset[bytes]:
    """What ``Connection`` names besides."""
    values = (value for name, value in headers if name == b"connection")
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))
