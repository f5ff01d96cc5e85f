"""Endpoints that lie, stall, shout or redirect: none of them is believed, and another one is asked."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from typing import Any

import pytest
from aiohttp import web

from streamgate.adapters import chain_jsonrpc
from streamgate.adapters.chain_jsonrpc import JsonRpcChains
from streamgate.domain.errors import ChainUnavailable
from streamgate.ports.chain import Call, Returned, Reverted
from tests.support.chain import CHAIN, Chain
from tests.support.clock import FakeClock
from tests.support.rpc import Answer, endpoint


def block(number: int = 5) -> dict[str, Any]:
    return {"number": hex(number), "hash": "0x" + f"{number:064x}", "timestamp": "0x1"}


def honest(body: dict[str, Any], number: int = 5) -> Any:
    return {"eth_chainId": "0x7a69", "eth_getBlockByNumber": block(number), "eth_call": "0x" + "00" * 32}[
        body["method"]
    ]


async def slow(_body: Any) -> Any:
    await asyncio.sleep(30)


def failing(method: str, answer: Answer) -> Answer:
    return lambda body: answer(body) if body["method"] == method else honest(body)


def error(code: int, message: str = "", data: Any = None) -> Answer:
    return lambda body: web.json_response(
        {"jsonrpc": "2.0", "id": body["id"], "error": {"code": code, "message": message, "data": data}}
    )


BAD_HEADS: dict[str, Answer] = {
    "another chain": lambda body: "0x1",
    "no JSON": lambda _body: web.Response(text="<html>"),
    "another id": lambda _body: web.json_response({"jsonrpc": "2.0", "id": 0, "result": "0x7a69"}),
    "no result": lambda body: web.json_response({"jsonrpc": "2.0", "id": body["id"]}),
    "a server error": lambda _body: web.Response(status=500, text="{}"),
    "a rate limit": lambda body: web.json_response({"id": body["id"], "result": "0x7a69"}, status=429),
    "a refusal": error(-32005, "limit exceeded"),
    "an error that is text": lambda body: web.json_response({"id": body["id"], "error": "no"}),
    "too much": lambda body: web.Response(body=b'{"x":"' + b"a" * (1 << 20) + b'"}'),
    "a redirect": lambda _body: web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
    "a list": lambda _body: web.json_response([1]),
    "deep nesting": lambda _body: web.Response(text="[" * 100_000),
    "a number that is none": lambda _body: "7a69",
}


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_an_endpoint_that_misbehaves_is_not_believed(name: str, clock: FakeClock) -> None:
    async with endpoint(BAD_HEADS[name]) as bad, JsonRpcChains({CHAIN: [bad]}, clock) as chains:
        with pytest.raises(ChainUnavailable):
            await chains.head(CHAIN)


async def test_another_endpoint_is_asked_then_and_the_bad_one_left_alone(clock: FakeClock, chain: Chain) -> None:
    asked = []

    def bad(body: dict[str, Any]) -> Any:
        asked.append(body)
        return web.Response(status=503)

    async with endpoint(bad) as url, JsonRpcChains({CHAIN: [url, chain.url]}, clock) as chains:
        assert (await chains.head(CHAIN)).endpoint == 1
        assert (await chains.head(CHAIN)).endpoint == 1
        assert len(asked) == 1
        clock.advance(6)
        await chains.head(CHAIN)
        assert len(asked) == 2


async def test_an_endpoint_that_stalls_is_given_up(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_jsonrpc, "TIMEOUT_S", 0.3)
    async with endpoint(slow) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        with pytest.raises(ChainUnavailable):
            await chains.head(CHAIN)


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_line_that_ends_in_the_moment_it_is_used_again_is_no_fault(clock: FakeClock, how: str) -> None:
    lines = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One answer a connection; the next question is read and its connection ended without a word."""
        nonlocal lines
        lines += 1
        for answered in (False, True):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
            asked = json.loads(await reader.readexactly(length))
            if answered:
                break
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": honest(asked)}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        head = await chains.head(CHAIN)  # two questions
        assert await chains.read(head, [Call(b"\x11" * 20, b"")]) == [Returned(b"\x00" * 32)]
    assert lines == 3


async def test_an_endpoint_that_lags_is_passed_over(clock: FakeClock) -> None:
    heads = {"fast": 1000, "slow": 1000}
    async with (
        endpoint(lambda body: honest(body, heads["slow"])) as behind,
        endpoint(lambda body: honest(body, heads["fast"])) as ahead,
        JsonRpcChains({CHAIN: [behind, ahead]}, clock) as chains,
    ):
        assert (await chains.head(CHAIN)).endpoint == 0
        heads["slow"] = 900
        assert (await chains.head(CHAIN)).endpoint == 1
        heads["slow"] = 1000


CALLS: dict[str, tuple[Answer, type | bytes]] = {
    "a revert": (error(3, "execution reverted", "0x7e273289"), Reverted(bytes.fromhex("7e273289"))),  # type: ignore[dict-item]
    "a revert of older nodes": (error(-32000, "execution reverted"), Reverted(b"")),  # type: ignore[dict-item]
    "a lost block": (error(-32001, "Resource not found"), ChainUnavailable),
    "a missing header": (error(-32000, "header not found"), ChainUnavailable),
    "an internal error": (error(-32603, "boom"), ChainUnavailable),
    "no data": (lambda _body: "0x", Returned(b"")),  # type: ignore[dict-item]
    "no hex": (lambda _body: "zz", ChainUnavailable),
    "half a byte": (lambda _body: "0x1", ChainUnavailable),
    "a number": (lambda _body: 1, ChainUnavailable),
    "nothing": (lambda _body: None, ChainUnavailable),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_revert_a_value_and_a_fault_are_kept_apart(name: str, clock: FakeClock) -> None:
    answer, expected = CALLS[name]
    async with endpoint(failing("eth_call", answer)) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        head = await chains.head(CHAIN)
        if expected is ChainUnavailable:
            with pytest.raises(ChainUnavailable):
                await chains.read(head, [Call(b"\x01" * 20, b"")])
        else:
            assert await chains.read(head, [Call(b"\x01" * 20, b"")]) == [expected]


async def test_reads_are_pinned_to_the_block_of_their_head(clock: FakeClock) -> None:
    seen: list[Any] = []

    def record(body: dict[str, Any]) -> Any:
        if body["method"] == "eth_call":
            seen.append(body["params"][1])
        return honest(body)

    async with endpoint(record) as url, JsonRpcChains({CHAIN: [url]}, clock) as chains:
        await chains.read(await chains.head(CHAIN), [Call(b"\x01" * 20, b"")])
    assert seen == [{"blockHash": block()["hash"], "requireCanonical": True}]


async def test_addresses_of_endpoints_never_reach_the_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    async with JsonRpcChains({CHAIN: ["http://127.0.0.1:1/v3/topsecret"]}, clock) as chains:
        with pytest.raises(ChainUnavailable) as failed:
            await chains.head(CHAIN)
    assert "topsecret" not in caplog.text + json.dumps(failed.value.to_wire())


async def test_a_chain_that_is_not_configured_is_unavailable(clock: FakeClock) -> None:
    async with JsonRpcChains({}, clock) as chains:
        assert chains.known() == frozenset()
        with pytest.raises(ChainUnavailable):
            await chains.head("eip155:1")
