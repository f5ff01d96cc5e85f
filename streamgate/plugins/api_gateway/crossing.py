"""Which headers cross the gateway, in either direction.

Hop-by-hop headers (RFC 9110 section 7.6.1) belong to one connection. What only the gateway may say of a request (who sent
it) is taken out of what came and written anew, so that nobody can say it of himself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from multidict import CIMultiDict

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


def inward(scope: Any) -> CIMultiDict[str]:
    """The headers of a request as the owning service gets them: the caller's, with request id and client address from us.

    ``tracestate`` passes with the ``traceparent`` that it belongs to; where that was missing or malformed a new trace has
    begun. Raises `ValidationFailed` for a value that is not UTF-8.
    """
    given: list[Header] = scope["headers"]
    dropped = HOP_BY_HOP | ONLY_OURS | _named(given)
    traceparent = str(scope["state"]["traceparent"])
    if [value for name, value in given if name == b"traceparent"] != [traceparent.encode()]:
        dropped |= {b"tracestate"}
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in given:
        if name not in dropped and not name.startswith(ONLY_OURS_PREFIXES):
            try:
                kept.add(name.decode("ascii"), value.decode("utf-8"))
            except UnicodeDecodeError:
                raise ValidationFailed("A header of the request is not UTF-8.") from None
    kept["x-request-id"] = str(scope["state"]["request_id"])
    kept["traceparent"] = traceparent
    client = scope.get("client")
    kept["x-forwarded-for"] = client[0] if client else "unknown"
    return kept


def outward(given: Iterable[Header]) -> list[Header]:
    """The headers of a service's answer as the caller gets them."""
    headers = [(name.lower(), value) for name, value in given]
    dropped = HOP_BY_HOP | FROM_SERVER | _named(headers)
    return [(name, value) for name, value in headers if name not in dropped]


def _named(headers: Iterable[Header]) -> frozenset[bytes]:
    """What ``Connection`` names besides."""
    values = (value for name, value in headers if name == b"connection")
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))
