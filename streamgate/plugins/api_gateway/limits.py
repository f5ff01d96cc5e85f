"""Rate limits of the API: by account or API key for those who are known, by address for everybody else.

Answers carry ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers), refusals ``Retry-After``
(RFC 9110 section 10.2.3). Media addresses are not limited: a playback token is checked for less than a counter costs.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from streamgate.domain.errors import RateLimited, StreamGateError, Unauthenticated, Unavailable
from streamgate.domain.identity import ANONYMOUS, Caller
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.ports.limiter import Limiter, Rate, Verdict
from streamgate.runtime.http import Authenticates
from streamgate.runtime.problems import send_problem

ASGI = Callable[[Any, Any, Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

SIGN_IN = ("/api/v1/auth/challenges", "/api/v1/auth/sessions", "/api/v1/auth/sessions/refresh")


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a request counts against. ``name`` is public, ``key`` is not."""

    name: str
    key: str
    rate: Rate


class Limits:
    """Counts every request under ``/api/`` before it is answered, and verifies its credential once for all that follows."""

    def __init__(self, app: ASGI, *, limiter: Limiter, authenticator: Authenticates, settings: GatewaySettings) -> None:
        self._app = app
        self._limiter = limiter
        self._authenticator = authenticator
        self._known = Rate(settings.requests_per_s, settings.requests_burst)
        self._unknown = Rate(settings.anonymous_per_s, settings.anonymous_burst)
        self._sign_in = Rate(settings.sign_in_per_s, settings.sign_in_burst)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        try:
            bucket = await self._bucket(scope)
        except StreamGateError as error:
            await send_problem(scope, send, error)
            return
        verdict = await self._take(bucket)
        if verdict is None:
            await self._app(scope, receive, send)
            return
        if not verdict.allowed:
            refused = RateLimited(
                f"More than {bucket.rate.burst} requests at once, or {bucket.rate.per_s:g} a second for long.",
                retry_after=verdict.retry_after_s,
            )
            await send_problem(scope, send, refused, _headers(bucket, verdict))
            return

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(bucket, verdict)]
            await send(message)

        await self._app(scope, receive, marked)

    async def _bucket(self, scope: Any) -> Bucket:
        address = _network(scope.get("client"))
        if scope["method"] == "POST" and scope["path"].rstrip("/") in SIGN_IN:
            return Bucket("sign-in", f"sign-in:{address}", self._sign_in)
        try:
            caller = await self._caller(scope)
        except Unauthenticated:
            # Guessing credentials is counted like signing in.
            return Bucket("sign-in", f"sign-in:{address}", self._sign_in)
        if caller.key_id is not None:
            return Bucket("key", f"key:{caller.key_id}", self._known)
        if caller.account is not None:
            return Bucket("account", f"account:{caller.account}", self._known)
        return Bucket("address", f"address:{address}", self._unknown)

    async def _caller(self, scope: Any) -> Caller:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if given is None:
            return ANONYMOUS
        caller = await self._authenticator.caller(given.decode("latin-1"))
        scope.setdefault("state", {})["caller"] = caller
        return caller

    async def _take(self, bucket: Bucket) -> Verdict | None:
        """The verdict; None when nobody can count now, which must not stop those who may come in."""
        try:
            return await self._limiter.take(bucket.key, bucket.rate)
        except Unavailable as error:
            structlog.get_logger().warning("rate limits cannot be counted", reason=error.detail)
            return None


def _network(client: tuple[str, int] | None) -> str:
    """The address that is counted: one IPv4 address, or the /64 of an IPv6 address, which one subscriber has whole."""
    if client is None:
        return "unknown"
    try:
        parsed = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0]
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _headers(bucket: Bucket, verdict: Verdict) -> Headers:
    policy = f'"{bucket.name}";q={bucket.rate.burst};w={math.ceil(bucket.rate.window_s)}'
    now = f'"{bucket.name}";r={verdict.remaining};t={math.ceil(verdict.reset_s)}'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]
