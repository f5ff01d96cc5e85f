"""The nine services, each a process of its own, on one PostgreSQL, NATS and object store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from streamgate.ports.discovery import GRPC_OFFSET
from tests.support.server import Server, lasting_port
from tests.support.slim import slim

SERVICES = ("auth", "metadata", "upload", "transcoder", "streaming", "cache", "worker", "monitor", "api-gateway")

SHARED = ("postgresql", "nats", "s3", "redis")
"""Extras that every service is installed with here, beside its own."""


class Nine:
    """The running services by name; ``gateway`` is the product's door and knows the administrator key.

    ``sql``: what a statement says in their database, where that is known.
    """

    sql: Callable[[str], str]

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


def made(
    folder: Path,
    settings: Mapping[str, Any],
    replicas: Mapping[str, int] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Server]:
    """The services by name, not started, each in an environment with its own extras alone.

    ``settings``: those of database, bus and storage, and what else all are told; ``replicas``: how many there are of a
    service where it is not one. The second replica of ``upload`` is ``upload-2``. All know of all. ``own``: what some are
    told for themselves, by name.
    """
    folder.mkdir(exist_ok=True)
    counts = {name: (replicas or {}).get(name, 1) for name in SERVICES}
    ports = {name: [lasting_port(GRPC_OFFSET) for _ in range(count)] for name, count in counts.items()}
    gateway = folder / "api-gateway"
    gateway.mkdir()
    admin = _secret(gateway / "admin.key", b"sg_admin_" + os.urandom(32).hex().encode() + b"\n")
    told = {
        **_keys(folder),
        **settings,
        "auth.admin_key_file": admin,
        "public_url": f"http://127.0.0.1:{ports['api-gateway'][0]}",
        "discovery.services": {name: [f"127.0.0.1:{port}" for port in its] for name, its in ports.items()},
    }
    servers = {}
    for service, its in ports.items():
        python = slim(folder / f"{service}.env", service, *SHARED)
        for number, port in enumerate(its, 1):
            name = service if number == 1 else f"{service}-{number}"
            its_own = {"service_key_file": str(folder / f"{service}.pem"), **(own or {}).get(name, {})}
            servers[name] = Server(folder / name, {**told, **its_own}, port=port, service=service, python=python)
    return servers


@contextmanager
def nine(
    folder: Path,
    settings: Mapping[str, Any],
    replicas: Mapping[str, int] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Nine]:
    """The services (see `made`), all ready; at the end they stop when they are told to."""
    servers = made(folder, settings, replicas, own)
    with ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.kill)
            server.start(wait=False)
        for server in servers.values():
            server.wait_ready(time.monotonic())
        yield Nine(servers)
        for server in servers.values():
            server.tell_to_stop()
        for server in servers.values():
            assert server.wait_for_end() == 0, server.log()[-3000:]
