"""The nine services, each a process of its own, on one PostgreSQL, NATS and object store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.server import Server, free_port
from tests.support.slim import slim

SERVICES = ("auth", "metadata", "upload", "transcoder", "streaming", "cache", "worker", "monitor", "api-gateway")

SHARED = ("postgresql", "nats", "s3", "redis")
"""Extras that every service is installed with here, beside its own."""


class Nine:
    """The running services by name; ``gateway`` is the product's door and knows the administrator key."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self.servers = servers
        self.gateway = servers["api-gateway"]


def _secret(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def _keys(folder: Path) -> dict[str, Any]:
    """A key pair for every service, and the key files that all replicas share; the settings that name them."""
    public = {}
    for name in SERVICES:
        key = Ed25519PrivateKey.generate()
        _secret(folder / f"{name}.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        shown = folder / f"{name}.pub.pem"
        shown.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        public[name] = {"public_key_file": str(shown)}
    return {
        "services": public,
        "auth.signing_keys_file": _secret(folder / "signing", b"one " + os.urandom(32).hex().encode() + b"\n"),
        "streaming.playback_keys_file": _secret(folder / "playback", b"1 " + os.urandom(32).hex().encode() + b"\n"),
    }


def _port() -> int:
    """A free port whose neighbour a thousand further is free too."""
    while True:
        port = free_port()
        if port > 60_000:
            port -= 20_000
        try:
            with socket.socket() as http, socket.socket() as grpc:
                http.bind(("127.0.0.1", port))
                grpc.bind(("127.0.0.1", port + 1000))
        except OSError:
            continue
        return port


@contextmanager
def nine(folder: Path, settings: Mapping[str, Any]) -> Iterator[Nine]:
    """The services, all ready, each in an environment with its own extras alone.

    ``settings``: those of database, bus and storage, and what else all are told.
    """
    folder.mkdir(exist_ok=True)
    ports = {name: _port() for name in SERVICES}
    gateway = folder / "api-gateway"
    gateway.mkdir()
    admin = _secret(gateway / "admin.key", b"sg_admin_" + os.urandom(32).hex().encode() + b"\n")
    told = {
        **_keys(folder),
        **settings,
        "auth.admin_key_file": admin,
        "public_url": f"http://127.0.0.1:{ports['api-gateway']}",
        "discovery.services": {name: [f"127.0.0.1:{port}"] for name, port in ports.items()},
    }
    servers = {
        name: Server(
            folder / name,
            {**told, "service_key_file": str(folder / f"{name}.pem")},
            port=ports[name],
            service=name,
            python=slim(folder / f"{name}.env", name, *SHARED),
        )
        for name in SERVICES
    }
    with ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.kill)
            server.start(wait=False)
        for server in servers.values():
            server.wait_ready(time.monotonic())
        yield Nine(servers)
        for server in servers.values():
            assert server.stop() == 0, server.log()[-3000:]
