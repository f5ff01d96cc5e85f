"""Calls to contracts of other services: deadline, then breaker, then retries out of a budget, then one replica after another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from streamgate.contracts.declare import declaration
from streamgate.domain import deadline
from streamgate.domain.clock import Clock
from streamgate.domain.errors import DeadlineExceeded, Internal, StreamGateError, Unavailable
from streamgate.kernel import Check
from streamgate.kernel.binding import remote
from streamgate.ports.discovery import Discovery
from streamgate.runtime.breaker import Breaker, RetryBudget
from streamgate.runtime.rpc.codec import STATUS_DETAILS, Codec
from streamgate.runtime.rpc.schema import Rpc
from streamgate.runtime.rpc.tls import Tls
from streamgate.runtime.rpc.tokens import ServiceSigner
from streamgate.runtime.trace import carried

ATTEMPTS = 3
FIRST_PAUSE_S = 0.05
OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 128 << 10),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.enable_http_proxy", 0),
)

HEALTH = "/grpc.health.v1.Health/Check"

Send = Callable[[bytes, str | None], Awaitable[bytes]]
"""Sends a request's bytes with an ``authorization`` (None: without one); the answer's bytes. Raises errors of the tree."""


class NeverSent(Unavailable):
    """No connection could be made, so the call was not carried out."""


class RpcClient:
    """Makes objects that behave as the contracts they are asked for, wherever those are served."""

    def __init__(
        self, codec: Codec, discovery: Discovery, signer: ServiceSigner, clock: Clock, *, tls: Tls | None = None
    ) -> None:
        self._codec = codec
        self._discovery = discovery
        self._signer = signer
        self._clock = clock
        self._credentials = tls and grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        self._channels: dict[tuple[str, str], Any] = {}
        self._turns: dict[str, int] = {}
        self._breakers: dict[str, Breaker] = {}

    def bound(self, kind: type) -> Any:
        """The contract ``kind``, called where its service is."""
        path, rpcs = self._codec.services[kind]
        service = declaration(kind).service
        by_name = {rpc.method.name: rpc for rpc in rpcs}
        return remote(kind, lambda method: self._calling(service, path, by_name[method.name]))

    def passing(self, kind: type) -> Mapping[str, Send]:
        """Name of a method → what sends a request to the contract's service as it is, with the credential of whoever made it.

        It must be used within a deadline. One circuit breaker stands before each service.
        """
        path, rpcs = self._codec.services[kind]
        service = declaration(kind).service
        breaker = self._breakers[service] = self._breakers.get(service) or Breaker(self._clock)
        return {rpc.name: self._sending(service, f"/{path}/{rpc.name}", breaker) for rpc in rpcs}

    async def health(self) -> Mapping[str, Check]:
        """``degraded`` for a service that calls are passed on to and that is given time."""
        return {
            service: Check("ok" if breaker.state == "closed" else "degraded", f"circuit breaker {breaker.state}")
            for service, breaker in self._breakers.items()
        }

    async def serving(self, kind: type) -> bool:
        """Whether a replica of the contract's service says (``grpc.health.v1``) that it answers calls."""
        path, _ = self._codec.services[kind]
        request = HealthCheckRequest(service=path).SerializeToString()
        try:
            answer = await self._once(declaration(kind).service, HEALTH, request, None)
        except (_NoAnswer, StreamGateError):
            return False
        return bool(HealthCheckResponse.FromString(answer).status == HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close every connection."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    def _calling(self, service: str, path: str, rpc: Rpc) -> Callable[..., Awaitable[Any]]:
        encode, decode = self._codec.encoder(rpc.request), self._codec.decoder(rpc.response)
        send = self._sending(service, f"/{path}/{rpc.name}", Breaker(self._clock))

        async def call(**arguments: Any) -> Any:
            data = encode(rpc.request(**arguments))
            return getattr(decode(await send(data, f"Bearer {self._signer.token(service)}")), "result", None)

        return call

    def _sending(self, service: str, full: str, breaker: Breaker) -> Send:
        budget = RetryBudget()

        async def send(data: bytes, authorization: str | None) -> bytes:
            budget.called()
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._guarded(breaker, service, full, data, authorization)
                except NeverSent:
                    pause = FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 (no secret)
                    if attempt == ATTEMPTS or (deadline.remaining_s() or 0.0) <= pause or not budget.spend():
                        raise
                    await asyncio.sleep(pause)
            raise AssertionError("the last attempt returns or raises")

        return send

    async def _guarded(
        self, breaker: Breaker, service: str, full: str, data: bytes, authorization: str | None
    ) -> bytes:
        breaker.check()
        try:
            answer = await self._once(service, full, data, authorization)
        except _NoAnswer as lost:
            breaker.failed()
            raise lost.error from None
        except StreamGateError as error:
            breaker.abandoned() if isinstance(error, DeadlineExceeded) else breaker.succeeded()
            raise
        except BaseException:
            breaker.abandoned()
            raise
        breaker.succeeded()
        return answer

    async def _once(self, service: str, full: str, data: bytes, authorization: str | None) -> bytes:
        target = await self._target(service)
        metadata = [] if authorization is None else [("authorization", authorization)]
        metadata += carried().items()
        channel = self._channels.get((service, target))
        if channel is None:
            channel = self._channels[service, target] = self._connected(service, target)
        try:
            answer: bytes = await channel.unary_unary(full)(data, timeout=deadline.remaining_s(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise self._error(service, error) from None
        return answer

    def _connected(self, service: str, target: str) -> Any:
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=OPTIONS)
        # Wherever the service runs, its certificate names it.
        options = (*OPTIONS, ("grpc.ssl_target_name_override", service))
        return grpc.aio.secure_channel(target, self._credentials, options=options)

    async def _target(self, service: str) -> str:
        addresses = [a for a in await self._discovery.addresses(service) if a.grpc_port is not None]
        if not addresses:
            raise _NoAnswer(NeverSent(f"No replica of the {service} service is known.", retry_after=2))
        turn = self._turns[service] = self._turns.get(service, -1) + 1
        address = addresses[turn % len(addresses)]
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.grpc_port}"

    def _error(self, service: str, error: Any) -> Exception:
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_DETAILS:
                return self._codec.error(value)
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(f"The {service} service did not answer in time.", retry_after=1)
            case grpc.StatusCode.UNAVAILABLE:
                never = "failed to connect" in (error.details() or "").lower()
                kind = NeverSent if never else Unavailable
                return _NoAnswer(kind(f"The {service} service does not answer now.", retry_after=2))
        return Internal(f"The {service} service failed ({error.code().name}).")


class _NoAnswer(Exception):
    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.detail)
        self.error = error
