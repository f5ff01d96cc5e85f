"""The main job from end to end: a film goes in, and only the wallet that holds the ticket watches it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import node
from tests.support.browser import player
from tests.support.chain import CHAIN, CHAIN_ID, Chain, anvil
from tests.support.films import film
from tests.support.product import play, problem, upload, wait_playable
from tests.support.server import Server, wait_for
from tests.support.topology import Topology
from tests.support.wallet import Wallet

TTL_S = 2
IDLE_S = 2
HOLDER_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
"""The key of the node's account 1, which everybody knows."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def ticking() -> Iterator[Chain]:
    with anvil("--block-time", "1") as chain:
        yield chain


@pytest.fixture(scope="module")
def server(topology: Topology, tmp_path_factory: pytest.TempPathFactory, ticking: Chain) -> Iterator[Server]:
    settings = {
        "chains": {CHAIN: {"endpoints": [ticking.url]}},
        "auth.default_ttl_s": TTL_S,
        "streaming.idle_s": IDLE_S,
        "transcoder.rungs": [240, 360],
        "transcoder.preset": "ultrafast",
        "transcoder.passthrough": False,
    }
    with topology.serving(tmp_path_factory.mktemp("holder") / "data", settings) as server:
        yield server


@pytest.fixture(scope="module")
def gated(server: Server, ticking: Chain, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A playable film that one token opens: (asset id, contract)."""
    ticket = ticking.deploy("Ticket")
    ticking.mint(ticket, ticking.accounts[1], 7)
    rule = {"erc721": {"chain": CHAIN, "contract": ticket, "min": "1"}}
    with server.admin() as http:
        made = http.post("/api/v1/policies", json={"name": "Ticket", "document": {"v": 1, "expr": rule}})
    assert made.status_code == 201, made.text
    source = film(tmp_path_factory.mktemp("films"), seconds=30, width=640, height=360)
    asset_id = upload(server, source, title="Only for holders", policy_id=made.json()["id"], visibility="gated")
    wait_playable(server, asset_id)
    return asset_id, ticket


def signed_in_with_viem(server: Server, key: str) -> str:
    arguments = {"url": server.url, "key": key, "chainId": CHAIN_ID}
    return str(json.loads(node.run("sign_in.mjs", arguments))["access_token"])


def test_only_the_holder_watches_and_stops_when_the_token_is_gone(
    server: Server, ticking: Chain, gated: tuple[str, str]
) -> None:
    asset_id, ticket = gated
    assert problem(play(server, asset_id, None)) == (401, "unauthenticated")
    denied = play(server, asset_id, Wallet().sign_in(server.url, CHAIN_ID))
    assert problem(denied) == (403, "not_entitled")
    (leaf,) = denied.json()["leaves"]
    assert (leaf["decision"], leaf["have"], leaf["chain"]) == ("deny", "0", CHAIN)
    assert leaf["block"] > 0

    started = play(server, asset_id, signed_in_with_viem(server, HOLDER_KEY))
    assert started.status_code == 201, started.text
    assert started.json()["max_staleness_s"] == TTL_S
    url = started.json()["hls_url"]
    with player() as screen:
        assert screen.start(url) == 2
        screen.wait_until_past(1.0)
        screen.seek(15)
        screen.wait_until_past(16)
        screen.switch(1)
        screen.wait_until_past(20)
        assert screen.levels_played() == {0, 1}
        screen.wait_until_height(360)
        screen.seek(0)
        screen.wait_until_past(3 * TTL_S + 1)
        screen.pause()
        screen.wait(IDLE_S + 2)
        screen.seek(2)
        screen.wait_until_past(4)
        assert screen.quality()["shown"] > 60
        assert [found for found in screen.problems() if found["fatal"] or (found["status"] or 0) >= 400] == []

    refused, staleness = watch_until_refused(url, lambda: transferred(ticking, ticket))
    assert refused["code"] == "entitlement_lost"
    assert refused["leaves"][0]["decision"] == "deny"
    assert staleness <= TTL_S + 2
    with httpx.Client() as http:
        for path in ("master.m3u8", "240p/playlist.m3u8", "240p/init.mp4", "360p/1.m4s", "poster.jpg"):
            answer = http.get(url.replace("master.m3u8", path))
            assert problem(answer) == (403, "entitlement_lost"), path
            assert answer.headers["cache-control"] == "no-store"


def transferred(chain: Chain, ticket: str) -> float:
    """Move the token away; the wall time of the block that did it."""
    receipt = chain.transfer(ticket, chain.accounts[1], chain.accounts[2], 7)
    block = chain.rpc("eth_getBlockByNumber", receipt["blockNumber"], False)
    return float(int(block["timestamp"], 16))


def watch_until_refused(url: str, lose: Any) -> tuple[dict[str, Any], float]:
    """Ask for a segment every second; the refusal, and how long after the loss's block it came (seconds)."""
    segment = url.replace("master.m3u8", "240p/3.m4s")
    with httpx.Client() as http:
        assert http.get(segment).status_code == 200
        lost_at = lose()
        while True:
            answer = http.get(segment)
            if answer.status_code != 200:
                body: dict[str, Any] = answer.json()
                return body, time.time() - lost_at
            assert time.time() - lost_at < 60, "bytes are still served"
            time.sleep(1)


def test_the_new_holder_watches_then(server: Server, ticking: Chain, gated: tuple[str, str], tmp_path: Path) -> None:
    asset_id, ticket = gated
    owner = (
        "0x" + ticking.rpc("eth_call", {"to": ticket, "data": ticking.call_data("ownerOf(uint256)", 7)}, "latest")[-40:]
    )
    wallet = Wallet()
    ticking.transfer(ticket, owner, wallet.address, 7)
    token = wallet.sign_in(server.url, CHAIN_ID)
    # A head is at most a second old.
    started = wait_for(lambda: (answer := play(server, asset_id, token)).status_code == 201 and answer, 5)
    with server.client(token) as http:
        assert http.get(started.json()["hls_url"]).status_code == 200
        assert http.delete("/api/v1/auth/session").status_code == 204
    with httpx.Client() as http:

        def ended() -> bool:
            answer = http.get(started.json()["hls_url"])
            return answer.status_code == 403 and problem(answer)[1] == "session_revoked"

        until = time.monotonic() + 5
        while not ended():
            assert time.monotonic() < until, "signing out did not end playback"
            time.sleep(0.1)
