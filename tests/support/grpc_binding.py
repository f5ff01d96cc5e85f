"""Contracts bound over gRPC within one process: a real server on a free port, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamgate.contracts.declare import contracts, declaration
from streamgate.domain.clock import SystemClock
from streamgate.domain.identity import ANONYMOUS, Caller
from streamgate.ports.discovery import Address, Discovery
from streamgate.runtime.rpc.admission import Guard
from streamgate.runtime.rpc.client import RpcClient
from streamgate.runtime.rpc.codec import Codec
from streamgate.runtime.rpc.server import RpcServer
from streamgate.runtime.rpc.tokens import ServiceSigner, ServiceVerifier


class People:
    """Knows people by token."""

    def __init__(self, callers: dict[str, Caller] | None = None) -> None:
        self.callers = callers or {}

    async def caller(self, authorization: str | None) -> Caller:
        return ANONYMOUS if authorization is None else self.callers[authorization.removeprefix("Bearer ")]


class At(Discovery):
    """Every service at the given gRPC ports."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports

    async def services(self) -> tuple[str, ...]:
        return ()

    async def addresses(self, service: str) -> tuple[Address, ...]:
        return tuple(Address("127.0.0.1", 1, port) for port in self.ports)


class AnyService(ServiceVerifier):
    """Accepts tokens for every callee, as one process serves them all here."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        names = {declaration(kind).service for kind in contracts()}
        self._all = [ServiceVerifier(name, {"tests": key.public_key()}) for name in names]

    def caller(self, token: str) -> str | None:
        import jwt

        audience = jwt.decode(token, options={"verify_signature": False})["aud"]
        return next(one for one in self._all if one._service == audience).caller(token)


class OverGrpc:
    """A binding: what is provided is served, and what is needed is called, through a socket."""

    def __init__(self, server: RpcServer, client: RpcClient) -> None:
        self.server, self.client = server, client

    def __call__(self, kind: type, provider: object) -> Any:
        self.server.add(kind, provider)
        return self.client.bound(kind)


@asynccontextmanager
async def grpc_binding() -> AsyncIterator[OverGrpc]:
    """The binding while its server runs."""
    clock, key, codec = SystemClock(), Ed25519PrivateKey.generate(), Codec(contracts())
    server = RpcServer(codec, Guard(AnyService(key), People()), "127.0.0.1", 0)
    await server.start()
    client = RpcClient(codec, At(server.port), ServiceSigner("tests", key, clock), clock)
    try:
        yield OverGrpc(server, client)
    finally:
        await client.close()
        await server.stop(1)
