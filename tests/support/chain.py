"""A real EVM node (anvil) on a free port, with real tokens on it."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
from eth_abi import encode
from eth_utils import function_signature_to_4byte_selector

from tests.support import node
from tests.support.server import free_port

CHAIN_ID = 31337
CHAIN = f"eip155:{CHAIN_ID}"
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
ANVIL = node.MODULES / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"


@functools.cache
def contracts() -> dict[str, dict[str, Any]]:
    """The compiled contracts of tests/node/Tokens.sol."""
    found: dict[str, dict[str, Any]] = json.loads(node.run("compile.mjs"))
    return found


@functools.cache
def multicall3() -> str:
    """The creation code of Multicall3, as viem carries it."""
    text = (node.MODULES / "viem" / "constants" / "contracts.ts").read_text()
    found = re.search(r"multicall3Bytecode\s*=\s*'(0x[0-9a-f]+)'", text)
    assert found, "viem carries Multicall3 somewhere else now"
    return found[1]


class RpcError(Exception):
    """The node refused a call."""


class Chain:
    """A running node. Its ten accounts are unlocked; account 0 deploys and pays."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(timeout=20)
        self._accounts: list[str] = []

    def rpc(self, method: str, *params: Any) -> Any:
        """The result of a JSON-RPC call."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = self._http.post(self.url, json=body).json()
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    @property
    def accounts(self) -> list[str]:
        """The node's unlocked accounts."""
        if not self._accounts:
            self._accounts = self.rpc("eth_accounts")
        return self._accounts

    def send(self, to: str | None, data: str, sender: str | None = None) -> dict[str, Any]:
        """A transaction, and its receipt once it is in a block."""
        call = {"from": sender or self.accounts[0], "data": data, "gas": hex(5_000_000)}
        hash_ = self.rpc("eth_sendTransaction", call | ({"to": to} if to else {}))
        until = time.monotonic() + 20
        while time.monotonic() < until:
            receipt: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", hash_)
            if receipt is not None:
                assert receipt["status"] == "0x1", f"the transaction failed: {receipt}"
                return receipt
            time.sleep(0.05)
        raise AssertionError("the transaction was not mined")

    def deploy(self, name: str) -> str:
        """The address of a fresh contract."""
        return str(self.send(None, contracts()[name]["bytecode"])["contractAddress"])

    def place_multicall3(self, *, present: bool = True) -> None:
        """Put Multicall3 where it is on other chains, or take it away: what its constructor leaves, at its address."""
        code = self.rpc("eth_call", {"data": multicall3()}, "latest") if present else "0x"
        self.rpc("anvil_setCode", MULTICALL3, code)
        self.rpc("evm_mine")

    def call_data(self, signature: str, *arguments: Any) -> str:
        """ABI-encoded call data of ``name(type,type)``."""
        types = signature[signature.index("(") + 1 : -1].split(",")
        return "0x" + (function_signature_to_4byte_selector(signature) + encode(types, arguments)).hex()

    def mint(self, ticket: str, to: str, token_id: int) -> None:
        """Mint a token to somebody."""
        self.send(ticket, self.call_data("mint(address,uint256)", to, token_id))

    def burn(self, ticket: str, token_id: int) -> None:
        """Destroy a token."""
        self.send(ticket, self.call_data("burn(uint256)", token_id))

    def transfer(self, ticket: str, owner: str, to: str, token_id: int) -> dict[str, Any]:
        """Move a token; its owner needs no key here: the node acts for it."""
        self.rpc("anvil_impersonateAccount", owner)
        self.rpc("anvil_setBalance", owner, hex(10**18))
        data = self.call_data("transferFrom(address,address,uint256)", owner, to, token_id)
        return self.send(ticket, data, sender=owner)


@contextlib.contextmanager
def anvil(*options: str) -> Iterator[Chain]:
    """A node of its own, ended afterwards."""
    assert ANVIL.is_file(), "anvil is missing; run: make test"
    port = free_port()
    command = [
        str(ANVIL),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--chain-id",
        str(CHAIN_ID),
        "--silent",
        *options,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        chain = Chain(port)
        until = time.monotonic() + 20
        while True:
            try:
                chain.rpc("eth_chainId")
                break
            except (httpx.HTTPError, ValueError):
                assert process.poll() is None, "anvil ended"
                assert time.monotonic() < until, "anvil does not answer"
                time.sleep(0.05)
        yield chain
    finally:
        process.terminate()
        process.wait(10)
