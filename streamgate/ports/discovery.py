"""Discovery: where the other services are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

GRPC_OFFSET = 1000
"""A service's gRPC port is its HTTP port plus this, where nothing else is said."""


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

    def present(self, service: str, address: Address) -> AbstractAsyncContextManager[None]:
        """While the block is entered, others can find this process at ``address``; nothing to do where a list is given."""
        return nullcontext()

    async def healthy(self) -> bool:
        """Whether the source answered last time."""
        return True
