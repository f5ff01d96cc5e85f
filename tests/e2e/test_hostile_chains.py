"""A node that is away, slow, lying, or far too talkative opens nothing: the viewer is told to come again."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.films import film
from tests.support.product import play, problem, upload, wait_playable
from tests.support.server import Server, free_port
from tests.support.topology import Topology
from tests.support.wallet import Wallet

FIRST_ID = 40_001
HELD = "0x" + f"{5:064x}"


def honest(request: dict[str, Any]) -> Any:
    """A chain on which everybody holds five of everything."""
    block = {"number": "0x5", "hash": "0x" + "05" * 32, "timestamp": hex(int(time.time()))}
    answers = {
        "eth_chainId": hex(request["chain"]),
        "eth_getBlockByNumber": block,
        "eth_call": HELD,
        "eth_getCode": "0x6001",
    }
    return answers[request["method"]]


def only(method: str, instead: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Honest but for one method."""
    return lambda request: instead(request) if request["method"] == method else honest(request)


def slow(request: dict[str, Any]) -> Any:
    time.sleep(20)
    return honest(request)


PEERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "slow": slow,
    "of another chain": only("eth_chainId", lambda _: "0x1"),
    "without a head": only("eth_getBlockByNumber", lambda _: None),
    "talkative": only("eth_call", lambda _: "0x" + "00" * (1 << 20)),
    "short of words": only("eth_call", lambda _: "0x05"),
    "silent about balances": only("eth_call", lambda _: "0x"),
    "without the contract": only("eth_getCode", lambda _: "0x"),
    "nonsensical": only("eth_call", lambda _: {"five": 5}),
    "nonsensical about its head": only("eth_getBlockByNumber", lambda _: {"number": "five"}),
}


NAMES = [*PEERS, "away", "honest"]
CHAINS = {name: f"eip155:{number}" for number, name in enumerate(NAMES, FIRST_ID)}


@contextlib.contextmanager
def node(answer: Callable[[dict[str, Any]], Any], chain: int) -> Iterator[str]:
    """A JSON-RPC server on loopback; it answers batches item by item."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            many = asked if isinstance(asked, list) else [asked]
            found = [{"jsonrpc": "2.0", "id": one["id"], "result": answer({**one, "chain": chain})} for one in many]
            body = json.dumps(found if isinstance(asked, list) else found[0]).encode()
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def gated(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, dict[str, str]]]:
    """A server that knows a chain of every kind, a playable film, and the addresses of the nodes."""
    with contextlib.ExitStack() as stack:
        urls = {"away": f"http://127.0.0.1:{free_port()}"}
        for number, name in enumerate(NAMES, FIRST_ID):
            if name != "away":
                urls[name] = stack.enter_context(node(PEERS.get(name, honest), number))
        settings = {
            "chains": {CHAINS[name]: {"endpoints": [url]} for name, url in urls.items()},
            "transcoder.rungs": [240],
            "transcoder.preset": "ultrafast",
            "transcoder.passthrough": False,
        }
        server = stack.enter_context(topology.serving(tmp_path_factory.mktemp("hostile") / "data", settings))
        asset_id = upload(server, film(tmp_path_factory.mktemp("films"), seconds=1), visibility="gated")
        wait_playable(server, asset_id)
        yield server, asset_id, urls


@pytest.mark.parametrize("expr", ["holding", "not holding"])
@pytest.mark.parametrize("peer", NAMES)
def test_a_node_that_cannot_be_believed_opens_nothing(
    gated: tuple[Server, str, dict[str, str]], peer: str, expr: str
) -> None:
    server, asset_id, urls = gated
    leaf = {"erc20": {"chain": CHAINS[peer], "contract": "0x" + "11" * 20, "min": "1"}}
    rule = leaf if expr == "holding" else {"not": leaf}
    with server.admin() as http:
        draft = {"name": "One", "document": {"v": 1, "expr": rule}}
        policy = http.post("/api/v1/policies", json=draft).json()["id"]
        assert http.patch(f"/api/v1/assets/{asset_id}", json={"policy_id": policy}).status_code == 200
    began = time.monotonic()
    refused = play(server, asset_id, Wallet().sign_in(server.url))
    if peer == "honest":
        assert refused.status_code == (201 if expr == "holding" else 403)
        return
    assert problem(refused) == (503, "chain_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["leaves"][0]["decision"] == "unknown"
    assert urls[peer] not in refused.text
    assert time.monotonic() - began < 12
