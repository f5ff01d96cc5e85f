"""The law of Discovery, asked of every adapter."""

from __future__ import annotations

import pytest

from streamgate.adapters.discovery_static import StaticDiscovery
from streamgate.domain.errors import ConfigurationError
from streamgate.ports.discovery import Address, Discovery

KNOWN = {"auth": ["127.0.0.1:9007", "[::1]:9007"], "monitor": ["127.0.0.1:9009"], "worker": []}


@pytest.fixture(params=["static"])
def discovery(request: pytest.FixtureRequest) -> Discovery:
    return {"static": lambda: StaticDiscovery(KNOWN, itself="monitor")}[request.param]()


async def test_others_are_known_and_oneself_is_left_out(discovery: Discovery) -> None:
    assert await discovery.services() == ("auth", "worker")


async def test_every_replica_has_its_address(discovery: Discovery) -> None:
    assert await discovery.addresses("auth") == (Address("127.0.0.1", 9007, 10007), Address("::1", 9007, 10007))


async def test_what_is_not_known_has_none(discovery: Discovery) -> None:
    assert await discovery.addresses("nothing") == ()
    assert await discovery.addresses("worker") == ()


@pytest.mark.parametrize("address", ["nowhere", "host:", ":80", "host:0", "host:70000", "host:http"])
def test_an_address_that_is_none_stops_the_start(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not host:port"):
        StaticDiscovery({"auth": [address]}, itself="monitor")
