"""Who sent a request, by address: behind trusted proxies the address that they name, else the connection's."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HOPS = 16


class Clients:
    """``trusted``: networks of the proxies whose ``X-Forwarded-For`` is believed; none by default."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def of(self, scope: Any) -> tuple[str, int] | None:
        """The client's address and port (0 when a proxy named it); None where the server does not know it.

        The list is read from its end: the first address that is no trusted proxy is the client, since everything
        further left was written by whoever sent the request. An entry that is no address ends the walk.
        """
        client: tuple[str, int] | None = scope.get("client")
        if not self._trusted or client is None or not self._trusts(client[0]):
            return client
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        found = client
        for hop in reversed(hops.decode("latin-1").split(",")[-MOST_HOPS:]):
            address = _address(hop)
            if address is None:
                break
            found = (address, 0)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._trusted if network.version == mapped.version)


def _address(text: str) -> str | None:
    """An address of the list, without its port or brackets, in its canonical form."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
