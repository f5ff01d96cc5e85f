"""CORS (Fetch standard, section 3.2) for the API, and the headers that every answer of the product carries.

Only the configured origins may read the API from a browser; credentials are bearer tokens, never cookies. Media paths
answer for themselves, since a player may run anywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from streamgate.runtime.site import Site

ASGI = Callable[[Any, Any, Any], Awaitable[None]]

MEDIA = "/p/"
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = (
    "Authorization, Content-Type, If-None-Match, Range, X-Request-Id, Idempotency-Key, Tus-Resumable, Upload-Length, "
    "Upload-Offset, Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, X-HTTP-Method-Override, "
    "X-Requested-With"
)
RESPONSE_HEADERS = (
    "Location, ETag, Retry-After, X-Request-Id, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, "
    "Tus-Checksum-Algorithm, Upload-Length, Upload-Offset, Upload-Metadata, Upload-Defer-Length, Upload-Concat, "
    "Upload-Expires, StreamGate-Asset, RateLimit, RateLimit-Policy"
)
EVERYWHERE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"permissions-policy", b"interest-cohort=()"),
)
ENCRYPTED = (b"strict-transport-security", b"max-age=31536000")
"""Only where ``public_url`` is https (RFC 6797 section 7.2)."""


class Cors:
    """Answers preflights to the API and marks answers to allowed origins."""

    def __init__(self, app: ASGI, *, site: Site, max_age_s: int) -> None:
        self._app = app
        self._origins = site.allowed_origins
        self._everywhere = (*EVERYWHERE, ENCRYPTED) if site.public_url.startswith("https://") else EVERYWHERE
        self._max_age = str(max_age_s).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith(MEDIA):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        of_api = scope["path"].startswith(("/api/", "/.well-known/", "/openapi.json"))
        allowed = of_api and origin is not None and origin.decode("latin-1") in self._origins
        if (
            of_api
            and origin is not None
            and scope["method"] == "OPTIONS"
            and b"access-control-request-method" in headers
        ):
            await self._preflight(send, origin if allowed else None)
            return

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent = list(message.get("headers", ()))
                names = {name.lower() for name, _ in sent}
                sent += [(name, value) for name, value in self._everywhere if name not in names]
                if of_api:
                    sent.append((b"vary", b"Origin"))
                if allowed and origin is not None:
                    sent.append((b"access-control-allow-origin", origin))
                    sent.append((b"access-control-expose-headers", RESPONSE_HEADERS.encode()))
                message["headers"] = sent
            await send(message)

        await self._app(scope, receive, marked)

    async def _preflight(self, send: Any, origin: bytes | None) -> None:
        headers = [
            (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            *self._everywhere,
        ]
        if origin is not None:
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-methods", METHODS.encode()),
                (b"access-control-allow-headers", REQUEST_HEADERS.encode()),
                (b"access-control-max-age", self._max_age),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
