"""Discovery: where the other services are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """One replica of a service: host, HTTP port, gRPC port (None where it has none)."""

    host: str
    http_port: int
    grpc_port: int | None = None


class Discovery(ABC):
    """Replicas by service name (with a hyphen)."""

    @abstractmethod
    async def services(self) -> tuple[str, ...]:
        """Every service that is known, except the asking process itself."""

    @abstractmethod
    async def addresses(self, service: str) -> tuple[Address, ...]:
        """Replicas that are thought healthy; when the source is down, the last good list."""
