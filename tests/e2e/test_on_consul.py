"""A whole server that is found through Consul."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.consul import consul
from tests.support.server import serving, wait_for

# One process on a part of what nine use.
pytestmark = pytest.mark.embedded


def test_a_server_is_registered_while_it_takes_requests(tmp_path: Path) -> None:
    with consul() as agent:
        agent.check_every_s = 0.1
        settings = {"discovery.backend": "consul", "discovery.consul_address": agent.address}
        with serving(tmp_path / "data", settings) as server:
            (entry,) = wait_for(lambda: agent.registered("streamgate-monolith"))
            assert (entry["address"], entry["port"]) == ("127.0.0.1", server.port)
            agent.fail(entry["id"])
            wait_for(lambda: agent.status[entry["id"]] == "passing")
            with server.admin() as http:
                assert http.get("/health").json()["checks"]["discovery"]["status"] == "ok"
            assert server.stop() == 0
            assert agent.services == {}


def test_consul_may_be_away_at_the_start_and_at_the_end(tmp_path: Path) -> None:
    with consul() as agent:
        agent.stop()
        settings = {"discovery.backend": "consul", "discovery.consul_address": agent.address}
        with serving(tmp_path / "data", settings) as server:
            with server.client() as http:
                wait_for(lambda: http.get("/health").json()["status"] == "degraded")
            agent.start()
            wait_for(lambda: agent.registered("streamgate-monolith"))
            agent.stop()
            assert server.stop() == 0
