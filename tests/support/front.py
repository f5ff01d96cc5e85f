"""The gateway's port for calls before services that each have a port of their own, in one process: real sockets, one product."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from streamgate.app import Running
from streamgate.contracts.declare import contracts, declaration
from streamgate.kernel import DirectBinding, discover
from streamgate.ports.discovery import GRPC_OFFSET
from streamgate.runtime.rpc.admission import Authenticates, Guard
from streamgate.runtime.rpc.codec import Codec
from streamgate.runtime.rpc.server import RpcServer
from streamgate.runtime.rpc.tls import Tls
from streamgate.runtime.rpc.tokens import ServiceVerifier
from streamgate.runtime.site import SERVICE_PORTS
from streamgate.settings import load
from tests.support.server import free_port

KEYS = {name: Ed25519PrivateKey.generate() for name in SERVICE_PORTS}
"""What each service signs with."""

CODEC = Codec(contracts())


def free_grpc_port() -> int:
    """A free port that can be the gRPC port of a service."""
    while (port := free_port()) <= GRPC_OFFSET + 1024:
        pass
    return port


def server_of(
    service: str, providers: Mapping[type, object], people: Authenticates, *, port: int = 0, tls: Tls | None = None
) -> RpcServer:
    """The gRPC side of a service, with every contract of its that ``providers`` has."""
    guard = Guard(ServiceVerifier(service, {name: key.public_key() for name, key in KEYS.items()}), people)
    server = RpcServer(CODEC, guard, "127.0.0.1", port or free_grpc_port(), tls=tls)
    for kind in contracts():
        if declaration(kind).service == service and kind in providers:
            server.add(kind, providers[kind])
    return server


def key_files(folder: Path, service: str) -> dict[str, Any]:
    """The settings ``service_key_file`` and ``services`` of a service, with the files that they name."""
    secret = folder / f"{service}.pem"
    secret.write_bytes(KEYS[service].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    secret.chmod(0o600)
    known = {}
    for name, key in KEYS.items():
        shown = folder / f"{name}.pub.pem"
        shown.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        known[name] = {"public_key_file": str(shown)}
    return {"service_key_file": str(secret), "services": known}


@dataclass(frozen=True)
class Front:
    """``target``: the gateway's gRPC address; ``app``: its HTTP side."""

    target: str
    app: Any


@asynccontextmanager
async def front(
    folder: Path, ports: Mapping[str, int | tuple[int, ...]], settings: Mapping[str, Any]
) -> AsyncIterator[Front]:
    """The gateway before services at these gRPC ports; ``settings`` beside those that it needs."""
    folder.mkdir(exist_ok=True)
    port = free_grpc_port()
    places = {
        name: tuple(f"127.0.0.1:{one - GRPC_OFFSET}" for one in (at if isinstance(at, tuple) else (at,)))
        for name, at in ports.items()
    }
    flags = {
        "data_dir": folder,
        "port": port - GRPC_OFFSET,
        **key_files(folder, "api-gateway"),
        "discovery": {"services": places},
        **settings,
    }
    plugins = discover({"api-gateway"})
    loaded = load(plugins, service="api-gateway", environ={}, flags=flags)
    running = Running(loaded, "api-gateway", apart=True)
    async with running.started(plugins, DirectBinding()):
        yield Front(f"127.0.0.1:{port}", running.app)


@asynccontextmanager
async def product_apart(folder: Path, *, settings: Mapping[str, str]) -> AsyncIterator[tuple[Running, dict[str, int]]]:
    """The whole product, started in one process, and the gRPC port of each of its services. ``settings``: its environment."""
    plugins = discover(set(SERVICE_PORTS))
    loaded = load(plugins, service="monolith", environ=settings, flags={"data_dir": folder})
    running = Running(loaded, "monolith")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running.started(plugins, DirectBinding()))
        ports = {}
        for service in SERVICE_PORTS:
            server = server_of(service, running.assembled.bound, running.authenticator())
            await server.start()
            await server.ready()
            stack.push_async_callback(server.stop, 0)
            ports[service] = server.port
        yield running, ports
