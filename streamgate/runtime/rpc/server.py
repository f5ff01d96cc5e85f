"""The gRPC side of a service: its contracts, health and, when wanted, reflection.

A call carries ``authorization: Bearer …``: a service token, and then ``caller`` is whom the service speaks for; or a person's own
access token or API key, and then the method must be open to that role and ``caller`` is that person, whatever the message says.
Without it the call is anonymous.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import msgspec
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from streamgate.contracts.declare import open_to
from streamgate.domain import deadline
from streamgate.domain.errors import ConfigurationError, Forbidden, Internal, StreamGateError, Unauthenticated
from streamgate.domain.identity import Caller
from streamgate.runtime.rpc.codec import STATUS_DETAILS, Codec
from streamgate.runtime.rpc.problem import STATUS
from streamgate.runtime.rpc.schema import Rpc
from streamgate.runtime.rpc.tokens import ServiceVerifier

LONGEST_S = 60.0
"""Seconds that a call may take at most, whatever its deadline."""

OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 128 << 10),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


class Authenticates(Protocol):
    """Verifies a person's credential."""

    async def caller(self, authorization: str | None) -> Caller: ...


@dataclass(frozen=True)
class Guard:
    """Decides who may make a call."""

    verifier: ServiceVerifier
    authenticator: Authenticates

    async def admit(self, rpc: Rpc, authorization: str | None) -> Caller | None:
        """The person who makes the call; None when a service does, speaking for whom it says. Raises what to answer else."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.verifier.caller(token.strip()) is not None:
            return None
        role = open_to(rpc.function)
        person = await self.authenticator.caller(authorization)
        if role is None:
            if authorization is None:
                raise Unauthenticated("Only services may call this, with a service token.")
            raise Forbidden("Only services may call this.")
        person.require(role)
        person.require_scope(None)
        return person


class RpcServer:
    """Serves contracts at ``host:port`` (port 0: a free one; see `port`)."""

    def __init__(self, codec: Codec, guard: Guard, host: str, port: int, *, reflected: bool = False) -> None:
        self.port = port
        self._codec = codec
        self._guard = guard
        self._host = f"[{host}]" if ":" in host else host
        self._reflected = reflected
        self._methods: dict[str, Any] = {}
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        self._server: Any = None

    def add(self, kind: type, provider: object) -> None:
        """Serve a contract."""
        service, rpcs = self._codec.services[kind]
        self._names.append(service)
        for rpc in rpcs:
            handler = self._handler(rpc, getattr(provider, rpc.method.name))
            self._methods[f"/{service}/{rpc.name}"] = grpc.unary_unary_rpc_method_handler(handler)

    async def start(self) -> None:
        """Listen; `ConfigurationError` when the port is taken."""
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((_Handlers(self._methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflected:
            names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server, pool=self._codec.pool)
        try:
            self.port = server.add_insecure_port(f"{self._host}:{self.port}")
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

    def _handler(self, rpc: Rpc, call: Callable[..., Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        decode, encode = self._codec.decoder(rpc.request), self._codec.encoder(rpc.response)
        names = [name for name, _ in rpc.method.parameters]

        async def answer(data: bytes, given: dict[str, Any]) -> bytes:
            person = await self._guard.admit(rpc, given.get("authorization"))
            request = decode(data)
            arguments = {name: getattr(request, name) for name in names}
            if person is not None:
                arguments["caller"] = person
            result = await call(**arguments)
            try:
                return encode(rpc.response(result) if msgspec.structs.fields(rpc.response) else rpc.response())
            except StreamGateError as error:
                raise Internal(f"{rpc.name} answered with a value that cannot be sent: {error.detail}") from error

        async def handle(data: bytes, context: Any) -> bytes:
            given = dict(context.invocation_metadata() or ())
            left = context.time_remaining()
            bound = {name: given[key] for name, key in CARRIED.items() if _ID.match(str(given.get(key, "")))}
            try:
                with structlog.contextvars.bound_contextvars(**bound):
                    async with deadline.within(min(LONGEST_S, deadline.DEFAULT_S if left is None else left)):
                        return await answer(data, given)
            except StreamGateError as error:
                failed = error
            except Exception:  # noqa: BLE001 (a defect must not tell callers of itself)
                structlog.get_logger().exception("a call failed", method=rpc.name)
                failed = Internal("This failed; the log of the service says why.")
            status = getattr(grpc.StatusCode, STATUS[failed.code])
            details = self._codec.details(failed, status.value[0])
            await context.abort(status, failed.detail, ((STATUS_DETAILS, details),))
            raise AssertionError("abort raises")

        return handle


CARRIED = {"request_id": "x-request-id", "traceparent": "traceparent"}
"""Name in the log's context → metadata that carries it."""


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds a method by its path, also one that was added after the start."""

    def __init__(self, methods: dict[str, Any]) -> None:
        self._methods = methods

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)
