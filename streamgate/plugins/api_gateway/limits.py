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


class Meter:
    """Counts requests and calls, and verifies their credentials once for all that follows."""

    def __init__(self, *, limiter: Limiter, authenticator: Authenticates, settings: GatewaySettings) -> None:
        self._limiter = limiter
        self._authenticator = authenticator
        self._known = Rate(settings.requests_per_s, settings.requests_burst)
        self._unknown = Rate(settings.anonymous_per_s, settings.anonymous_burst)
        self._sign_in = Rate(settings.sign_in_per_s, settings.sign_in_burst)

    async def read(self, authorization: str | None, address: str | None) -> tuple[Bucket, Caller | None]:
        """What it counts against and who makes it; None for a credential that is not good."""
        try:
            caller = ANONYMOUS if authorization is None else await self._authenticator.caller(authorization)
        except Unauthenticated:
            # Guessing credentials is counted like signing in.
            return self.signing_in(address), None
        if caller.key_id is not None:
            return Bucket("key", f"key:{caller.key_id}", self._known), caller
        if caller.account is not None:
            return Bucket("account", f"account:{caller.account}", self._known), caller
        return Bucket("address", f"address:{_network(address)}", self._unknown), caller

    def signing_in(self, address: str | None) -> Bucket:
        """What signing in counts against, whoever it is."""
        return Bucket("sign-in", f"sign-in:{_network(address)}", self._sign_in)

    async def take(self, bucket: Bucket) -> Verdict | None:
        """The verdict; None when nobody can count now, which must not stop those who may come in."""
        try:
            return await self._limiter.take(bucket.key, bucket.rate)
        except Unavailable as error:
            structlog.get_logger().warning("rate limits cannot be counted", reason=error.detail)
            return None


class Limits:
    """Counts every request under ``/api/`` before it is answered."""

    def __init__(self, app: ASGI, *, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        try:
            bucket = await self._bucket(scope)
        except StreamGateError as error:
            await send_problem(scope, send, error)
            return
        verdict = await self._meter.take(bucket)
        if verdict is None:
            await self._app(scope, receive, send)
            return
        if not verdict.allowed:
            await send_problem(scope, send, refusal(bucket, verdict), _headers(bucket, verdict))
            return

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_headers(bucket, verdict)]
            await send(message)

        await self._app(scope, receive, marked)

    async def _bucket(self, scope: Any) -> Bucket:
        client = scope.get("client")
        address = client[0] if client else None
        if scope["method"] == "POST" and scope["path"].rstrip("/") in SIGN_IN:
            return self._meter.signing_in(address)
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        bucket, caller = await self._meter.read(None if given is None else given.decode("latin-1"), address)
        if given is not None and caller is not None:
            scope.setdefault("state", {})["caller"] = caller
        return bucket


def refusal(bucket: Bucket, verdict: Verdict) -> RateLimited:
    """What whoever asked too often is told."""
    return RateLimited(
        f"More than {bucket.rate.burst} requests at once, or {bucket.rate.per_s:g} a second for long.",
        retry_after=verdict.retry_after_s,
    )


def marks(bucket: Bucket, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """How much is left, as header fields."""
    policy = f'"{bucket.name}";q={bucket.rate.burst};w={math.ceil(bucket.rate.window_s)}'
    now = f'"{bucket.name}";r={verdict.remaining};t={math.ceil(verdict.reset_s)}'
    return ("ratelimit-policy", policy), ("ratelimit", now)


def _headers(bucket: Bucket, verdict: Verdict) -> Headers:
    return [(name.encode(), value.encode()) for name, value in marks(bucket, verdict)]


def _network(address: str | None) -> str:
    """The address that is counted: one IPv4 address, or the /64 of an IPv6 address, which one subscriber has whole."""
    if address is None:
        return "unknown"
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
