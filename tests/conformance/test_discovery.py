"""The law of Discovery, asked of every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from streamgate.adapters.discovery_consul import ConsulDiscovery
from streamgate.adapters.discovery_dns import DnsDiscovery
from streamgate.adapters.discovery_static import StaticDiscovery
from streamgate.domain.errors import ConfigurationError
from streamgate.ports.discovery import Address, Discovery
from tests.support.clock import FakeClock
from tests.support.consul import consul
from tests.support.waiting import until

KNOWN = {"auth": ["127.0.0.1:9007", "[::1]:9007"], "monitor": ["127.0.0.1:9009"], "worker": []}
PORTS = {"auth": 9007, "monitor": 9009, "worker": 9008}


async def resolve(name: str) -> tuple[str, ...]:
    """A zone with the same services."""
    return {"auth.films": ("::1", "127.0.0.1"), "monitor.films": ("127.0.0.1",)}.get(name, ())


@pytest.fixture(params=["static", "dns", "consul"])
async def discovery(request: pytest.FixtureRequest) -> AsyncIterator[Discovery]:
    if request.param == "static":
        yield StaticDiscovery(KNOWN, itself="monitor")
        return
    if request.param == "dns":
        yield DnsDiscovery("{service}.films", PORTS, itself="monitor", clock=FakeClock(), resolve=resolve)
        return
    with consul() as agent:
        agent.check_every_s = 3600
        async with ConsulDiscovery(agent.address, tuple(PORTS), itself="monitor") as made, AsyncExitStack() as stack:
            for host in ("::1", "127.0.0.1"):
                await stack.enter_async_context(made.present("auth", Address(host, 9007, 10007)))
            await stack.enter_async_context(made.present("monitor", Address("127.0.0.1", 9009, 10009)))
            await until(lambda: len(agent.services) == 3)
            yield made


async def test_others_are_known_and_oneself_is_left_out(discovery: Discovery) -> None:
    assert await discovery.services() == ("auth", "worker")
    assert await discovery.addresses("monitor") == ()


async def test_every_replica_has_its_address(discovery: Discovery) -> None:
    assert await discovery.addresses("auth") == (Address("127.0.0.1", 9007, 10007), Address("::1", 9007, 10007))


async def test_what_is_not_known_has_none(discovery: Discovery) -> None:
    assert await discovery.addresses("nothing") == ()
    assert await discovery.addresses("worker") == ()


async def test_it_works(discovery: Discovery) -> None:
    await discovery.addresses("auth")
    assert await discovery.healthy()


@pytest.mark.parametrize("address", ["nowhere", "host:", ":80", "host:0", "host:70000", "host:http"])
def test_an_address_that_is_none_stops_the_start(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is not host:port"):
        StaticDiscovery({"auth": [address]}, itself="monitor")
