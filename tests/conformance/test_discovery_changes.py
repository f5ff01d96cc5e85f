"""Replicas come and go, and the source of their addresses goes away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from streamgate.adapters.discovery_consul import ConsulDiscovery
from streamgate.adapters.discovery_dns import REFRESH_S, DnsDiscovery, system_resolve
from streamgate.domain.errors import ConfigurationError
from streamgate.ports.discovery import Address
from tests.support.clock import FakeClock
from tests.support.consul import Consul, consul
from tests.support.proxy import proxy
from tests.support.server import free_port
from tests.support.waiting import until

ONE, TWO = Address("127.0.0.1", 9007, 10007), Address("127.0.0.2", 9007, 10007)
SERVICES = ("auth", "monitor")


@pytest.fixture
def agent() -> Iterator[Consul]:
    with consul() as made:
        made.check_every_s = 3600  # nobody listens at the addresses of these tests
        yield made


@asynccontextmanager
async def asking(agent: Consul, port: int | None = None, wait_s: float = 30.0) -> AsyncIterator[ConsulDiscovery]:
    """A process that looks for auth."""
    address = f"127.0.0.1:{port or agent.port}"
    async with ConsulDiscovery(address, SERVICES, itself="monitor", wait_s=wait_s) as discovery:
        yield discovery


async def test_a_process_is_found_while_it_is_present(agent: Consul) -> None:
    async with asking(agent) as one, asking(agent) as other:
        assert await other.addresses("auth") == ()

        async def knows(*wanted: Address) -> bool:
            return await other.addresses("auth") == wanted

        async with one.present("auth", ONE):
            await until(lambda: knows(ONE))
            async with one.present("auth", TWO):
                await until(lambda: knows(ONE, TWO))
                agent.fail("streamgate-auth-127.0.0.1-9007")
                await until(lambda: knows(TWO))
            await until(knows)
        assert agent.services == {}


async def test_what_is_registered_can_be_checked(agent: Consul) -> None:
    async with asking(agent) as one, one.present("auth", Address("::1", 9007, 10007)):
        await until(lambda: agent.services)
        (entry,) = agent.registered("streamgate-auth")
    assert (entry["address"], entry["port"], entry["meta"]) == ("::1", 9007, {"grpc_port": "10007"})
    assert entry["check"]["http"] == "http://[::1]:9007/health/ready"
    assert entry["check"]["deregistercriticalserviceafter"] == "1m"


async def test_queries_block_and_do_not_run_hot(agent: Consul) -> None:
    async with asking(agent) as one:
        await one.addresses("auth")
        await asyncio.sleep(0.5)
        for _ in range(100):
            await one.addresses("auth")
    assert len(agent.queries) <= 2
    assert agent.queries[0] == {"passing": "1"}
    assert agent.queries[1] == {"passing": "1", "index": "10", "wait": "30000ms"}


async def test_away_the_last_good_list_is_kept_and_it_goes_on_afterwards(agent: Consul) -> None:
    async with asking(agent) as one, asking(agent) as other, one.present("auth", ONE):
        await until(lambda: other.addresses("auth"))
        agent.stop()
        await until(lambda: healthy(other, False))
        assert await other.addresses("auth") == (ONE,)
        agent.start()
        async with one.present("auth", TWO):
            await until(lambda: knows_both(other), 30)
        await until(lambda: healthy(other, True))


async def healthy(discovery: ConsulDiscovery, wanted: bool) -> bool:
    return await discovery.healthy() is wanted


async def knows_both(discovery: ConsulDiscovery) -> bool:
    return await discovery.addresses("auth") == (ONE, TWO)


async def test_a_consul_that_lost_its_state_empties_nothing_and_is_told_again(
    agent: Consul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamgate.adapters.discovery_consul.LOOK_AFTER_S", 1.0)
    async with asking(agent) as one, asking(agent, wait_s=4.0) as other, one.present("auth", ONE):
        await until(lambda: other.addresses("auth"))
        agent.index += 1000
        async with one.present("auth", TWO):
            await until(lambda: knows_both(other))
        await until(lambda: knows(other, ONE))
        agent.stop()
        agent.forget()
        agent.start()
        seen = set()

        async def back() -> bool:
            seen.add(await other.addresses("auth"))
            return bool(agent.services)

        await until(back, 30)
        assert seen == {(ONE,)}
        async with one.present("auth", TWO):
            await until(lambda: knows_both(other), 30)


async def knows(discovery: ConsulDiscovery, *wanted: Address) -> bool:
    return await discovery.addresses("auth") == wanted


async def test_an_empty_list_that_stays_is_believed(agent: Consul) -> None:
    async with asking(agent) as one, asking(agent, wait_s=1.0) as other:
        async with one.present("auth", ONE):
            await until(lambda: other.addresses("auth"))
            agent.index += 1000
        await until(lambda: knows(other))


async def test_nobody_waits_long_for_a_consul_that_is_away_at_the_start() -> None:
    async with ConsulDiscovery(f"127.0.0.1:{free_port()}", SERVICES, itself="monitor") as discovery:
        began = time.monotonic()
        async with discovery.present("auth", ONE):
            assert await discovery.addresses("auth") == ()
        assert time.monotonic() - began < 10
        assert not await discovery.healthy()


async def test_a_link_that_goes_dead_is_noticed_and_left(agent: Consul) -> None:
    with proxy(agent.port) as line:
        async with asking(agent) as one, asking(agent, line.port, wait_s=0.5) as other, one.present("auth", ONE):
            await until(lambda: other.addresses("auth"))
            line.stall()
            await until(lambda: healthy(other, False), 30)
            assert await other.addresses("auth") == (ONE,)
            line.mend()
            async with one.present("auth", TWO):
                await until(lambda: knows_both(other), 30)


def test_an_address_of_consul_that_is_none_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"discovery\.consul_address"):
        ConsulDiscovery("ftp://consul", SERVICES, itself="monitor")


class Zone:
    """DNS: answers, counts, and goes away."""

    def __init__(self) -> None:
        self.hosts: tuple[str, ...] = ("10.0.0.1",)
        self.error: Exception | None = None
        self.asked = 0

    async def __call__(self, name: str) -> tuple[str, ...]:
        assert name == "auth.films"
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.hosts


async def test_dns_is_asked_again_when_its_answer_is_old_and_kept_while_it_is_away(clock: FakeClock) -> None:
    zone = Zone()
    discovery = DnsDiscovery("{service}.films", {"auth": 9007}, itself="monitor", clock=clock, resolve=zone)
    for _ in range(3):
        assert await discovery.addresses("auth") == (Address("10.0.0.1", 9007, 10007),)
    assert zone.asked == 1
    zone.hosts = ("10.0.0.3", "10.0.0.2", "10.0.0.2")
    clock.advance(REFRESH_S)
    two = (Address("10.0.0.2", 9007, 10007), Address("10.0.0.3", 9007, 10007))
    answers = await asyncio.gather(*(discovery.addresses("auth") for _ in range(20)))
    assert answers == [two] * 20
    assert zone.asked == 2
    for error in (socket.gaierror(socket.EAI_AGAIN, "again"), TimeoutError()):
        zone.error = error
        clock.advance(REFRESH_S)
        assert await discovery.addresses("auth") == two
        assert not await discovery.healthy()
    zone.error, zone.hosts = None, ()
    clock.advance(REFRESH_S)
    assert await discovery.addresses("auth") == ()
    assert await discovery.healthy()


async def test_the_system_resolves_names() -> None:
    assert "127.0.0.1" in await system_resolve("localhost")
    assert await system_resolve("127.0.0.9") == ("127.0.0.9",)
