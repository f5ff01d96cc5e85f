"""Seats on a real chain: one stream with one token, named by its viewer and verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chain import Chain
from tests.support.films import film
from tests.support.product import problem, upload, wait_playable
from tests.support.server import Server, wait_for
from tests.support.topology import Topology
from tests.support.wallet import Wallet

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(topology: Topology, chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "chains": {"eip155:31337": {"endpoints": [chain.url]}},
        "transcoder.rungs": [240],
        "transcoder.preset": "ultrafast",
        "transcoder.passthrough": False,
        "streaming.max_streams": 3,
    }
    with topology.serving(tmp_path_factory.mktemp("seats") / "data", settings) as server:
        yield server


def start(server: Server, asset_id: str, token: str, **body: Any) -> httpx.Response:
    """The answer to a viewer who comes again when told so: a node may be slow for a moment."""
    with server.client(token) as http:
        for _ in range(3):
            answer = http.post(f"/api/v1/assets/{asset_id}/playback", json=body)
            if answer.status_code != 503:
                break
            time.sleep(int(answer.headers["retry-after"]))
    return answer


def test_one_token_one_stream(server: Server, chain: Chain, tmp_path: Path) -> None:
    wallet, buyer = Wallet(), Wallet()
    ticket = chain.deploy("Ticket")
    for token_id in (7, 8):
        chain.mint(ticket, chain.accounts[1], token_id)
        chain.transfer(ticket, chain.accounts[1], wallet.address, token_id)
    document = {
        "v": 1,
        "expr": {"erc721": {"chain": "eip155:31337", "contract": ticket, "min": "1"}},
        "options": {"seats_per_token": 1, "ttl_s": 1},
    }
    with server.admin() as http:
        policy = http.post("/api/v1/policies", json={"name": "Seats", "document": document}).json()["id"]
    asset_id = upload(server, film(tmp_path, seconds=5), title="Seats", visibility="gated", policy_id=policy)
    wait_playable(server, asset_id)
    holder = wallet.sign_in(server.url)

    unnamed = start(server, asset_id, holder)
    assert problem(unnamed) == (403, "not_entitled"), unnamed.text
    assert "token_ids" in unnamed.json()["leaves"][0]["have"]
    stranger = start(server, asset_id, holder, token_ids=["9"])
    assert problem(stranger) == (403, "not_entitled"), stranger.text
    for wrong in (["x"], ["1"] * 17, ["-1"], [7]):
        assert problem(start(server, asset_id, holder, token_ids=wrong)) == (422, "validation_failed")

    first = start(server, asset_id, holder, token_ids=["7"])
    assert first.status_code == 201, first.text
    taken = start(server, asset_id, holder, token_ids=["7"])
    assert problem(taken) == (409, "seat_in_use")
    assert [s["session_id"] for s in taken.json()["sessions"]] == [first.json()["session_id"]]
    assert start(server, asset_id, holder, token_ids=["8"]).status_code == 201
    second = start(server, asset_id, holder, token_ids=["7"], takeover=True)
    assert second.status_code == 201, second.text
    assert problem(httpx.get(first.json()["hls_url"])) == (403, "session_revoked")
    assert httpx.get(second.json()["hls_url"]).status_code == 200

    chain.rpc("anvil_impersonateAccount", wallet.address)
    chain.rpc("anvil_setBalance", wallet.address, hex(10**18))
    chain.transfer(ticket, wallet.address, buyer.address, 7)
    new_holder = buyer.sign_in(server.url)
    # A head is at most a second old.
    wait_for(lambda: start(server, asset_id, new_holder, token_ids=["7"]).status_code == 201, 5)
    assert problem(httpx.get(second.json()["hls_url"]))[0] == 403


def test_an_account_has_so_many_streams(server: Server, tmp_path: Path) -> None:
    asset_id = upload(server, film(tmp_path, seconds=5), title="Public", visibility="public")
    wait_playable(server, asset_id)
    viewer = Wallet().sign_in(server.url)
    started = [start(server, asset_id, viewer).json() for _ in range(3)]
    refused = start(server, asset_id, viewer)
    assert problem(refused) == (409, "too_many_streams")
    assert len(refused.json()["sessions"]) == 3
    with server.client(viewer) as http:
        assert http.delete(f"/api/v1/playback/{started[0]['session_id']}").status_code == 204
    assert start(server, asset_id, viewer).status_code == 201
    assert start(server, asset_id, viewer, takeover=True).status_code == 201
    assert problem(httpx.get(started[1]["hls_url"])) == (403, "session_revoked")
    assert {start(server, asset_id, server.admin_key).status_code for _ in range(5)} == {201}
