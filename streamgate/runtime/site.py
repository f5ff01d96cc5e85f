"""Facts about this installation that several plugins need. A value, made once from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamgate.contracts.declare import declaration, installed
from streamgate.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Site:
    """``public_url``: where people reach the product, without a trailing slash; absolute URLs and the sign-in domain come
    from it and never from a header. ``media_url``: the same for media (``delivery.media_url``, default ``public_url``).
    ``allowed_origins``: origins that may call from a browser. ``data_dir``: local state (keys, scratch). ``redirect_s``: how
    long a signed address of a stored object is good for, where media is redirected to them; None where it is not.
    """

    public_url: str
    media_url: str
    allowed_origins: frozenset[str]
    data_dir: Path
    environment: str
    service: str
    version: str
    redirect_s: int | None = None


SERVICE_PORTS = {
    "api-gateway": 9090,
    "upload": 9091,
    "transcoder": 9092,
    "streaming": 9093,
    "metadata": 9005,
    "cache": 9006,
    "auth": 9007,
    "worker": 9008,
    "monitor": 9009,
}
"""HTTP port of each service where the settings name none."""

PORTS = {"monolith": 8080, **SERVICE_PORTS}
"""The same, and that of all services in one process."""


def service_ports() -> dict[str, int]:
    """HTTP port of each service where the settings name none, those of other packages too."""
    foreign = (declaration(kind) for kind in installed())
    return SERVICE_PORTS | {found.service: found.port for found in foreign if found.port is not None}


def port_of(service: str) -> int:
    """The service's HTTP port where the settings name none; `ConfigurationError` when it has none."""
    port = PORTS.get(service) or service_ports().get(service)
    if port is None:
        raise ConfigurationError(f"The service {service} has no port of its own; set `port`.")
    return port


@dataclass(frozen=True, slots=True)
class Residents:
    """The services that this process runs itself. Requests for any other one have to leave the process."""

    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class Introduction:
    """How this process shows another which service it is: ``token`` gives, for the other service, a token that is good there for
    a minute at most. None where the process has no key of its own."""

    token: Callable[[str], str] | None = None
