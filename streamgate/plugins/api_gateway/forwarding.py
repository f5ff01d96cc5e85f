"""Requests for services of other processes: on to their owner and its answer back, piece by piece, nothing kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from streamgate.domain.clock import Clock
from streamgate.domain.errors import DeadlineExceeded, MethodNotAllowed, StreamGateError, Unavailable
from streamgate.kernel import Check
from streamgate.plugins.api_gateway.body import Body, Patience
from streamgate.plugins.api_gateway.crossing import Header, head, inward, outward
from streamgate.plugins.api_gateway.lines import Line, Lines, NotConnected, Unanswered
from streamgate.plugins.api_gateway.replicas import Replicas
from streamgate.plugins.api_gateway.routing import Route, Routes
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.ports.discovery import Address
from streamgate.runtime.breaker import Breaker, RetryBudget
from streamgate.runtime.problems import send_problem

ASGI = Callable[[Any, Any, Any], Awaitable[None]]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1), so that a request may be repeated."""

REFUSED = frozenset({"CONNECT", "TRACE"})
"""Methods that mean something to whoever stands in between; no route takes them."""

DEADLINE = b"x-streamgate-deadline"
"""How many seconds the service has (`runtime.edge`)."""

ANSWERS_BEFORE = 0.9
"""The service is given a little less time than we wait, so that it says itself that it was too late."""


@asynccontextmanager
async def lines(settings: GatewaySettings) -> AsyncIterator[Lines]:
    """The connections to all services."""
    kept = Lines(settings.connect_timeout_s)
    try:
        yield kept
    finally:
        kept.close()


class Forwarding:
    """Sends what belongs to a service elsewhere to a replica of it, and everything else on to ``app``.

    A request tries another replica when nothing of it was sent; one that changes nothing is also repeated, once and out of a
    budget, when its connection ended before an answer, as one that was kept for reuse may. Whoever cannot be served gets a
    problem document: 503 when the service is away or was away too often lately, 504 when it took the request and kept silent.
    """

    def __init__(
        self,
        app: ASGI,
        *,
        routes: Routes,
        replicas: Replicas,
        breakers: Breakers,
        lines: Lines,
        settings: GatewaySettings,
    ) -> None:
        self._app = app
        self._routes = routes
        self._replicas = replicas
        self._breakers = breakers
        self._lines = lines
        self._settings = settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route = self._routes.of(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["path_template"] = route.template
        try:
            await self._forward(route, scope, receive, send)
        except StreamGateError as error:
            await send_problem(scope, send, error)

    async def _forward(self, route: Route, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] in REFUSED:
            raise MethodNotAllowed("This address does not take that method.")
        headers = inward(scope)
        breaker = self._breakers.of(route.service)
        breaker.check()
        verdict = breaker.abandoned
        answered = False
        patience = Patience()
        body = Body(receive, patience, self._settings.answer_timeout_s)
        try:
            async with patience:
                await body.begin()
                if body.sent:
                    headers.append((DEADLINE, b"%.3f" % (self._settings.answer_timeout_s * ANSWERS_BEFORE)))
                patience.on_service(self._settings.answer_timeout_s)
                line, status = await self._ask(route.service, scope, headers, body)
                answered, verdict = True, breaker.succeeded
                await self._answer(line, status, patience, body, send)
        except (OSError, TimeoutError) as error:
            if body.failure is not None:
                raise body.failure from None
            if patience.gone:
                return
            if not answered:
                verdict = breaker.failed
            structlog.get_logger().warning(
                "a service did not answer", to=route.service, answered=answered, reason=type(error).__name__
            )
            if not answered:
                raise self._explained(route.service, patience) from None
            # Half an answer cannot be taken back. The server ends the connection, so that it is not taken for a whole one.
        finally:
            body.end()
            verdict()

    async def _ask(self, service: str, scope: Any, headers: list[Header], body: Body) -> tuple[Line, int]:
        """The connection to a replica that answers, and with which status."""
        replicas = await self._replicas.of(service)
        budget = self._breakers.budget_of(service)
        budget.called()
        repeatable = scope["method"] in SAFE and body.sent
        while True:
            address = replicas.pop(0)
            try:
                line = await self._lines.to(address)
            except NotConnected:
                self._replicas.spare(address)
                if not replicas:
                    raise
                continue
            try:
                return line, await line.ask(_head(address, scope, headers, body), body.data, scope["method"])
            except Unanswered:
                self._lines.back(line, whole=False)
                if not repeatable or not budget.spend():
                    raise
                repeatable = False
                replicas.append(address)
            except BaseException:
                self._lines.back(line, whole=False)
                raise

    async def _answer(self, line: Line, status: int, patience: Patience, body: Body, send: Any) -> None:
        whole = False
        try:
            patience.on_caller()
            await send({"type": "http.response.start", "status": status, "headers": outward(line.headers)})
            while not whole:
                patience.on_service(self._settings.silence_timeout_s)
                piece, whole = await line.read()
                patience.on_caller()
                await send({"type": "http.response.body", "body": piece, "more_body": not whole})
        finally:
            # A connection with half an answer on it, or half a request, is of no more use.
            self._lines.back(line, whole=whole and body.sent)

    def _explained(self, service: str, patience: Patience) -> StreamGateError:
        if patience.expired:
            return DeadlineExceeded(f"The {service} service did not answer in time.", retry_after=2)
        return Unavailable(f"The {service} service cannot be reached now.", retry_after=2)


class Breakers:
    """One circuit breaker for each service, and one budget for what is repeated."""

    def __init__(self, clock: Clock) -> None:
        self._of: defaultdict[str, Breaker] = defaultdict(lambda: Breaker(clock))
        self._budgets: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)

    def of(self, service: str) -> Breaker:
        return self._of[service]

    def budget_of(self, service: str) -> RetryBudget:
        return self._budgets[service]

    async def health(self) -> Mapping[str, Check]:
        """``degraded`` for a service that is given time; one that was never called is not told of."""
        return {
            service: Check("ok" if breaker.state == "closed" else "degraded", f"circuit breaker {breaker.state}")
            for service, breaker in self._of.items()
        }


def _head(address: Address, scope: Any, headers: list[Header], body: Body) -> bytes:
    """The request as it goes to a replica: the same path and query, byte for byte, and how long its body is."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    sent = [(b"host", f"{host}:{address.http_port}".encode()), *headers]
    if not any(name == b"content-length" for name, _ in headers):
        size = body.size
        if size is None:
            sent.append((b"transfer-encoding", b"chunked"))
        elif size or scope["method"] not in SAFE:
            sent.append((b"content-length", b"%d" % size))
    return head(scope["method"], target, sent)
