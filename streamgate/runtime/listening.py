"""The sockets that a process listens on."""

from __future__ import annotations

import socket

from streamgate.domain.errors import ConfigurationError


def bound(host: str, port: int) -> list[socket.socket]:
    """One socket bound to each address of ``host``, not yet listening; `ConfigurationError` when that cannot be."""
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in _addresses(host, port):
            taken = socket.socket(family, kind, protocol)
            opened.append(taken)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.setblocking(False)
            taken.bind(address)
    except OSError as error:
        for taken in opened:
            taken.close()
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"Port {port} on {host} cannot be listened on: {reason}.") from None
    return opened


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]
