"""The gRPC side of a service: its contracts, health and, when wanted, reflection.

A call carries ``authorization: Bearer …``: a service token, and then ``caller`` is whom the service speaks for; or a person's own
access token or API key, and then the method must be open to that role and ``caller`` is that person, whatever the message says.
Without it the call is anonymous.

Calls of contracts of other services may be passed on to them, byte for byte: `RpcServer.forward`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
import msgspec
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from streamgate.domain import deadline
from streamgate.domain.errors import ConfigurationError, Internal, StreamGateError, Unauthenticated
from streamgate.runtime.clients import Clients
from streamgate.runtime.rpc.admission import Arriving, Door, Guard, Metadata
from streamgate.runtime.rpc.client import RpcClient, Send
from streamgate.runtime.rpc.codec import STATUS_DETAILS, Codec
from streamgate.runtime.rpc.health import Standing
from streamgate.runtime.rpc.problem import STATUS
from streamgate.runtime.rpc.schema import Rpc
from streamgate.runtime.rpc.tls import Tls
from streamgate.runtime.telemetry import Metrics
from streamgate.runtime.trace import CARRIED, continued

LONGEST_S = 60.0
"""Seconds that a call may take at most, whatever its deadline."""

LARGEST = 16 << 20
"""Bytes of a request, unless the server is told otherwise."""

LARGEST_OF_PEOPLE = 1 << 20
"""Bytes of a request where only people call, as of a JSON body over HTTP."""

OPTIONS = (
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 128 << 10),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)

Answering = Callable[[bytes, Arriving], Awaitable[tuple[bytes, Metadata]]]
"""A request's bytes, and whose it is → the answer's bytes and metadata that goes after them."""


class RpcServer:
    """Serves contracts at ``host:port`` (port 0: a free one; see `port`). ``clients`` tells who a call comes from.

    With ``tls`` nobody connects without a certificate of the authority, unless people call here (``by_services_only`` False).
    """

    def __init__(
        self,
        codec: Codec,
        guard: Guard,
        host: str,
        port: int,
        *,
        reflected: bool = False,
        clients: Clients = Clients(),  # noqa: B008 (a value)
        largest_request: int = LARGEST,
        tls: Tls | None = None,
        by_services_only: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        self.port = port
        self._codec = codec
        self._guard = guard
        self._host = f"[{host}]" if ":" in host else host
        self._reflected = reflected
        self._clients = clients
        self._metrics = metrics
        self._options = (*OPTIONS, ("grpc.max_receive_message_length", largest_request))
        self._credentials = tls and grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)], tls.authority if by_services_only else None, by_services_only
        )
        self._methods: dict[str, Any] = {}
        self._health = Standing()
        self._names: list[str] = []
        self._server: Any = None

    def add(self, kind: type, provider: object) -> None:
        """Serve a contract."""
        service, rpcs = self._codec.services[kind]
        self._names.append(service)
        for rpc in rpcs:
            self._serve(f"/{service}/{rpc.name}", rpc, self._answering(rpc, getattr(provider, rpc.method.name)))

    def forward(self, kind: type, door: Door, client: RpcClient) -> None:
        """Pass calls of a contract on to its service: those that the door admits, with nothing but request and credential.

        The codec must know the open methods of the contract alone (``open_only``).
        """
        service, rpcs = self._codec.services[kind]
        self._names.append(service)
        self._health.elsewhere[service] = partial(client.serving, kind)
        sends = client.passing(kind)
        for rpc in rpcs:
            self._serve(f"/{service}/{rpc.name}", rpc, self._passing(rpc, door, sends[rpc.name]))

    async def start(self) -> None:
        """Listen; `ConfigurationError` when the port is taken."""
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers((_Handlers(self._methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflected:
            names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server, pool=self._codec.pool)
        try:
            place = f"{self._host}:{self.port}"
            if self._credentials is None:
                self.port = server.add_insecure_port(place)
            else:
                self.port = server.add_secure_port(place, self._credentials)
        except RuntimeError:
            raise ConfigurationError(f"Port {self.port} of {self._host} is taken; gRPC needs it.") from None
        await server.start()
        self._server = server

    async def ready(self) -> None:
        """Say by ``grpc.health.v1`` that calls are answered."""
        for name in ("", *self._names):
            await self._health.set(name, HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Say that no more calls are wanted, and end when those under way have ended or ``grace_s`` seconds have passed."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _answering(self, rpc: Rpc, call: Callable[..., Awaitable[Any]]) -> Answering:
        decode, encode = self._codec.decoder(rpc.request), self._codec.encoder(rpc.response)
        names = [name for name, _ in rpc.method.parameters]

        async def answer(data: bytes, arriving: Arriving) -> tuple[bytes, Metadata]:
            person = await self._guard.admit(rpc, arriving.authorization)
            request = decode(data)
            arguments = {name: getattr(request, name) for name in names}
            if person is not None:
                arguments["caller"] = person
            result = await call(**arguments)
            try:
                return encode(rpc.response(result) if msgspec.structs.fields(rpc.response) else rpc.response()), ()
            except StreamGateError as error:
                raise Internal(f"{rpc.name} answered with a value that cannot be sent: {error.detail}") from error

        return answer

    def _passing(self, rpc: Rpc, door: Door, send: Send) -> Answering:
        async def answer(data: bytes, arriving: Arriving) -> tuple[bytes, Metadata]:
            marks = await door.admit(arriving)
            return await send(data, arriving.authorization), marks

        return answer

    def _serve(self, path: str, rpc: Rpc, answer: Answering) -> None:
        async def handle(data: bytes, context: Any) -> bytes:
            given = list(context.invocation_metadata() or ())
            left = context.time_remaining()
            following = continued({key: value for key, value in given if key in CARRIED.values()})
            trailers: list[tuple[str, Any]] = [(CARRIED["request_id"], following["request_id"])]
            began, code = time.perf_counter(), "CANCELLED"
            try:
                with structlog.contextvars.bound_contextvars(**following):
                    async with deadline.within(min(LONGEST_S, deadline.DEFAULT_S if left is None else left)):
                        answered, marks = await answer(data, self._arriving(rpc, given, context.peer()))
                        context.set_trailing_metadata((*trailers, *marks))
                        code = "OK"
                        return answered
            except StreamGateError as error:
                failed, code = error, STATUS[error.code]
            except Exception:  # noqa: BLE001 (a defect must not tell callers of itself)
                structlog.get_logger().exception("a call failed", method=rpc.name)
                failed, code = Internal("This failed; the log of the service says why."), "INTERNAL"
            finally:
                self._account(path, code, time.perf_counter() - began)
            status = getattr(grpc.StatusCode, STATUS[failed.code])
            details = self._codec.details(failed, status.value[0])
            await context.abort(status, failed.detail, (*trailers, (STATUS_DETAILS, details)))
            raise AssertionError("abort raises")

        self._methods[path] = grpc.unary_unary_rpc_method_handler(handle)

    def _account(self, path: str, code: str, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.calls.labels(path, code).inc()
            self._metrics.call_seconds.labels(path).observe(seconds)

    def _arriving(self, rpc: Rpc, given: list[tuple[str, Any]], peer: str) -> Arriving:
        credentials = [value for key, value in given if key == "authorization"]
        if len(credentials) > 1:
            raise Unauthenticated("Send one credential.")
        hops = [(key.encode(), value.encode()) for key, value in given if key == "x-forwarded-for"]
        client = self._clients.of({"client": _address(peer), "headers": hops})
        return Arriving(rpc, next(iter(credentials), None), client[0] if client else None)


def _address(peer: str) -> tuple[str, int] | None:
    """``ipv4:127.0.0.1:50051`` and ``ipv6:%5B::1%5D:50051`` as address and port; None for anything else."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return (host.strip("[]"), int(port)) if kind in {"ipv4", "ipv6"} and port.isdigit() else None


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds a method by its path, also one that was added after the start."""

    def __init__(self, methods: dict[str, Any]) -> None:
        self._methods = methods

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)
