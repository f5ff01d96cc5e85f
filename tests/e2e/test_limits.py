"""Rate limits at the door: who is counted as what, and what the refused are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.product import problem
from tests.support.server import Server
from tests.support.topology import Topology
from tests.support.wallet import Wallet

ASSETS = "/api/v1/assets"
ORIGIN = "https://films.example"


@pytest.fixture(scope="module")
def strict(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small buckets that hardly fill, behind a trusted proxy on this machine."""
    settings = {
        "api_gateway.anonymous_burst": 5,
        "api_gateway.anonymous_per_s": 0.05,
        "api_gateway.requests_burst": 8,
        "api_gateway.requests_per_s": 0.05,
        "api_gateway.sign_in_burst": 7,
        "api_gateway.sign_in_per_s": 0.05,
        "trusted_proxies": ["127.0.0.0/8"],
        "allowed_origins": [ORIGIN],
    }
    with topology.serving(tmp_path_factory.mktemp("strict") / "data", settings) as server:
        yield server


def seen_as(server: Server, address: str, token: str | None = None) -> httpx.Client:
    """A client that a proxy says sits at ``address``."""
    http = server.client(token)
    http.headers["x-forwarded-for"] = address
    return http


def test_an_address_has_a_burst_and_is_told_when_to_come_again(strict: Server) -> None:
    with seen_as(strict, "198.51.100.1") as http:
        answers = [http.get(ASSETS, headers={"origin": ORIGIN}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"address";q=5;w=100'
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == [
        "r=4",
        "r=3",
        "r=2",
        "r=1",
        "r=0",
        "r=0",
    ]
    refused = answers[-1]
    assert problem(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    assert refused.headers["cache-control"] == "no-store"
    with seen_as(strict, "198.51.100.2") as http:
        assert http.get(ASSETS).status_code == 200


def test_an_ipv6_subscriber_is_one_address(strict: Server) -> None:
    statuses = []
    for host in range(6):
        with seen_as(strict, f"2001:db8:1:2::{host + 1}") as http:
            statuses.append(http.get(ASSETS).status_code)
    assert statuses == [200] * 5 + [429]
    with seen_as(strict, "2001:db8:1:3::1") as http:
        assert http.get(ASSETS).status_code == 200


def test_who_is_known_is_counted_by_account_and_not_by_address(strict: Server) -> None:
    token = Wallet().sign_in(strict.url, headers={"x-forwarded-for": "198.51.100.3"})
    with seen_as(strict, "198.51.100.4", token) as http:
        statuses = [http.get(ASSETS).status_code for _ in range(5)]
        assert http.get(ASSETS).headers["ratelimit-policy"].startswith('"account";q=8')
    with seen_as(strict, "198.51.100.5", token) as http:
        statuses += [http.get(ASSETS).status_code for _ in range(4)]
    assert statuses == [200] * 7 + [429] * 2


def test_guessed_credentials_are_counted_like_sign_ins(strict: Server) -> None:
    with seen_as(strict, "198.51.100.6", "sg_key_" + "x" * 43) as http:
        statuses = [http.get(ASSETS).status_code for _ in range(8)]
    assert statuses == [401] * 7 + [429]
    with seen_as(strict, "198.51.100.6") as http:
        answer = http.post("/api/v1/auth/challenges", json={"address": Wallet().address, "chain_id": 1})
        assert problem(answer) == (429, "rate_limited")
        assert http.get(ASSETS).status_code == 200


def test_health_and_media_are_not_counted(strict: Server) -> None:
    with seen_as(strict, "198.51.100.7") as http:
        for path in ("/health", "/p/x/y/master.m3u8"):
            assert {http.get(path).status_code for _ in range(10)} <= {200, 404}


def test_every_answer_carries_safe_headers(strict: Server) -> None:
    with seen_as(strict, "198.51.100.8") as http:
        for path in (ASSETS, "/health", "/nothing"):
            headers = http.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["referrer-policy"] == "no-referrer"
            assert "strict-transport-security" not in headers


def test_the_documentation_page_runs_no_script(strict: Server) -> None:
    with seen_as(strict, "198.51.100.9") as http:
        page = http.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    rules = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert not rules.keys() & {"script-src", "connect-src", "img-src"}
    assert "<script" not in page.text


@pytest.mark.once
def test_an_encrypted_site_says_so(topology: Topology, tmp_path: Path) -> None:
    with topology.serving(tmp_path / "data", {"public_url": "https://films.example"}) as server:
        assert httpx.get(f"{server.url}/health").headers["strict-transport-security"].startswith("max-age=")
