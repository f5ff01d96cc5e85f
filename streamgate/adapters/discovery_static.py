"""Services at fixed addresses, from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamgate.domain.errors import ConfigurationError
from streamgate.ports.discovery import GRPC_OFFSET, Address, Discovery


class StaticDiscovery(Discovery):
    """``services``: name → ``host:http_port`` of each replica. ``itself``: the service that asks, which is left out."""

    def __init__(self, services: Mapping[str, Sequence[str]], *, itself: str) -> None:
        self._services = {
            name: tuple(_address(name, text) for text in addresses)
            for name, addresses in services.items()
            if name != itself
        }

    async def services(self) -> tuple[str, ...]:
        return tuple(sorted(self._services))

    async def addresses(self, service: str) -> tuple[Address, ...]:
        return self._services.get(service, ())


def _address(name: str, text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"discovery.services.{name}: {text!r} is not host:port.")
    return Address(host.strip("[]"), int(port), int(port) + GRPC_OFFSET)
