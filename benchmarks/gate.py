"""What the gate costs: cached decisions at a steady pace, and sign-ins."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
from eth_keys.datatypes import PrivateKey

from benchmarks.report import Figure
from benchmarks.visitors import Waits, visit
from tests.support.chain import anvil
from tests.support.films import film
from tests.support.product import play, upload, wait_playable
from tests.support.server import Server
from tests.support.wallet import Wallet

RUNS = 5
PACE = 1000
SECONDS = 5.0
CONNECTIONS = 50
SIGN_INS = 400
PARALLEL = 8


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Requests of a token holder's session at 1,000 a second; sign-ins a second from eight clients."""
    with anvil("--block-time", "1") as chain:
        settings = {
            "chains": {"eip155:31337": {"endpoints": [chain.url]}},
            "transcoder.rungs": [120],
            "transcoder.preset": "ultrafast",
            "api_gateway.sign_in_burst": 1_000_000,
            "log_level": "warning",
        }
        server = Server(folder / "gate", settings)
        server.start()
        try:
            wallet = Wallet()
            ticket = chain.deploy("Ticket")
            chain.mint(ticket, chain.accounts[1], 7)
            chain.transfer(ticket, chain.accounts[1], wallet.address, 7)
            rule = {"erc721": {"chain": "eip155:31337", "contract": ticket, "min": "1"}}
            document = {"v": 1, "expr": rule, "options": {"ttl_s": 2}}
            with server.admin() as http:
                policy = http.post("/api/v1/policies", json={"name": "One", "document": document}).json()["id"]
            asset_id = upload(
                server, film(folder, seconds=4, width=320, height=180), visibility="gated", policy_id=policy
            )
            wait_playable(server, asset_id)
            time.sleep(3)
            url = play(server, asset_id, wallet.sign_in(server.url)).json()["hls_url"]
            paths = [url.removeprefix(server.url)]
            waits = [asyncio.run(_steadily(server.port, paths)) for _ in range(RUNS)]
            rates = [asyncio.run(_sign_in(server.url)) for _ in range(RUNS)]
        finally:
            server.stop()
    return [
        Figure("gated request, p99", tuple(one.percentile(0.99) for one in waits), "ms", "≤ 2 ms",
               f"{PACE} a second for {SECONDS:.0f} s over HTTP, a real ERC-721 re-read every second, counted from when it was due"),
        Figure("gated request, p50", tuple(one.percentile(0.50) for one in waits), "ms", "–", "the same requests"),
        Figure("sign-ins", tuple(rates), "1/s", "–", f"challenge, signature, session; {PARALLEL} clients on the same cores"),
    ]  # fmt: skip


async def _steadily(port: int, paths: list[str]) -> Waits:
    waits = Waits()
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.2
    step = CONNECTIONS / PACE
    await asyncio.gather(
        *(
            visit(port, paths, waits, every_s=step, start=begin + number / PACE, until=begin + SECONDS)
            for number in range(CONNECTIONS)
        )
    )
    if waits.errors:
        raise RuntimeError(f"{len(waits.errors)} requests failed: {waits.errors[0]}")
    return waits


async def _sign_in(url: str) -> float:
    async def client(http: aiohttp.ClientSession, count: int) -> None:
        for _ in range(count):
            key = PrivateKey(random_key())
            body = {"address": key.public_key.to_checksum_address(), "chain_id": 1}
            async with http.post(f"{url}/api/v1/auth/challenges", json=body) as answer:
                message = (await answer.json())["message"]
            text = message.encode()
            prefixed = b"\x19Ethereum Signed Message:\n" + str(len(text)).encode() + text
            signature = key.sign_msg(prefixed).to_bytes()
            signed = {"message": message, "signature": "0x" + signature[:64].hex() + f"{signature[64] + 27:02x}"}
            async with http.post(f"{url}/api/v1/auth/sessions", json=signed) as answer:
                if answer.status != 201:
                    raise RuntimeError(await answer.text())

    async with aiohttp.ClientSession() as http:
        began = time.monotonic()
        await asyncio.gather(*(client(http, SIGN_INS // PARALLEL) for _ in range(PARALLEL)))
        return SIGN_INS / (time.monotonic() - began)


def random_key() -> bytes:
    """A private key that nobody else has."""
    import secrets

    return secrets.token_bytes(32)
