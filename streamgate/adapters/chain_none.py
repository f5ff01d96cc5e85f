"""Where no chain is configured: every rule that asks for one is unknown, and unknown never grants."""

from __future__ import annotations

from collections.abc import Sequence

from streamgate.domain.errors import ChainUnavailable
from streamgate.ports.chain import Answer, Chains, Head, Read


class NoChains(Chains):
    """Knows none."""

    def known(self) -> frozenset[str]:
        return frozenset()

    async def head(self, chain: str, tag: str = "latest") -> Head:
        raise ChainUnavailable(f"The chain {chain} is not configured on this server.")

    async def read(self, head: Head, reads: Sequence[Read]) -> list[Answer]:
        raise ChainUnavailable(f"The chain {head.chain} is not configured on this server.")

    async def has_code(self, head: Head, address: bytes) -> bool:
        raise ChainUnavailable(f"The chain {head.chain} is not configured on this server.")
