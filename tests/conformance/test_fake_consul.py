"""The stand-in for Consul, driven by a client that others wrote (py-consul)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import consul as others
import pytest

from tests.support.consul import Consul, consul


@pytest.fixture
def agent() -> Iterator[Consul]:
    with consul() as made:
        yield made


def names(found: list[dict[str, dict[str, str]]]) -> list[str]:
    return [entry["Service"]["ID"] for entry in found]


def test_registering_health_and_deregistering(agent: Consul) -> None:
    client = others.Consul(host="127.0.0.1", port=agent.port)
    check = others.Check.http("http://127.0.0.1:1/health", "10s", timeout="2s", deregister="1m")
    assert client.agent.service.register("films", service_id="f1", address="10.0.0.1", port=80, check=check)
    assert client.agent.service.register(
        "films", service_id="f2", address="10.0.0.2", port=81, meta={"grpc_port": "1081"}
    )
    _, found = client.health.service("films")
    assert names(found) == ["f1", "f2"]
    _, found = client.health.service("films", passing=True)
    assert names(found) == ["f2"], "a check is critical until it passed"
    assert found[0]["Service"]["Meta"] == {"grpc_port": "1081"}
    assert sorted(client.agent.services()) == ["f1", "f2"]
    assert client.agent.service.deregister("f2")
    assert names(client.health.service("films")[1]) == ["f1"]


def test_a_blocking_query_waits_for_a_change_or_its_time(agent: Consul) -> None:
    client = others.Consul(host="127.0.0.1", port=agent.port)
    index, found = client.health.service("films")
    assert found == []
    began = time.monotonic()
    again, found = client.health.service("films", index=index, wait="300ms")
    assert (again, found) == (index, [])
    assert time.monotonic() - began >= 0.29
    threading.Timer(0.2, client.agent.service.register, ("films",), {"service_id": "f1", "port": 80}).start()
    later, found = client.health.service("films", index=index, wait="20s")
    assert int(later) > int(index)
    assert names(found) == ["f1"]
    assert time.monotonic() - began < 15


def test_without_the_token_nothing_is_told() -> None:
    with consul("s3cret") as agent:
        with pytest.raises(others.ACLPermissionDenied):
            others.Consul(host="127.0.0.1", port=agent.port).health.service("films")
        assert others.Consul(host="127.0.0.1", port=agent.port, token="s3cret").health.service("films")[1] == []
