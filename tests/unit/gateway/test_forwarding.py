"""What comes through the gateway, and what happens when a service is away, silent, slow or half there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamgate.adapters.discovery_static import StaticDiscovery
from streamgate.contracts.declare import Declaration
from streamgate.domain import deadline
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import NotFound
from streamgate.plugins.api_gateway.forwarding import Breakers, Forwarding, lines
from streamgate.plugins.api_gateway.replicas import Replicas
from streamgate.plugins.api_gateway.routing import Routes
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.runtime.clients import Clients
from streamgate.runtime.edge import Edge
from streamgate.runtime.problems import send_problem
from streamgate.runtime.telemetry import Metrics
from tests.support.asgi import listening
from tests.support.server import free_port

ROUTES = Routes(
    [Declaration("films", ("/api/v1/films", "/api/v1/films/{film}", "/p/{path}")), Declaration("away", ("/away",))]
)
PATIENT_S = 60.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def own(scope: Any, receive: Any, send: Any) -> None:
    """The gateway's own app."""
    await send_problem(scope, send, NotFound("There is nothing at this address."))


@contextlib.asynccontextmanager
async def gateway(*ports: int, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway before the replicas of ``films`` at these ports."""
    chosen = GatewaySettings(**settings)
    known = {"films": [f"127.0.0.1:{port}" for port in ports], "away": [f"127.0.0.1:{free_port()}"]}
    clock = SystemClock()
    async with lines(chosen) as kept:
        app = Forwarding(
            own,
            routes=ROUTES,
            replicas=Replicas(StaticDiscovery(known, itself="api-gateway"), clock),
            breakers=Breakers(clock),
            lines=kept,
            settings=chosen,
        )
        edge = Edge(app, metrics=Metrics("api-gateway", "0"), clients=Clients(), body_timeout_s=PATIENT_S)
        async with listening(edge) as port:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENT_S) as client:
                yield client


async def respond(send: Any, status: int = 200, headers: Any = (), body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    whole = b""
    while True:
        message = await receive()
        whole += message.get("body", b"")
        if not message.get("more_body"):
            return whole


async def told(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fails after a minute."""
    async with asyncio.timeout(PATIENT_S):
        while not condition():
            await asyncio.sleep(0.01)


class Recorder:
    """A service that keeps what it got, and answers with it."""

    def __init__(self, name: bytes = b"") -> None:
        self.name = name
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.bodies.append(await read(receive))
        await respond(send, 200, [(b"content-length", b"%d" % len(self.name))], self.name)

    def headers(self) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for name, value in self.scopes[-1]["headers"]:
            found.setdefault(name, []).append(value)
        return found


async def test_path_query_method_body_and_credential_arrive_as_they_were_sent() -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port) as client:
        url = httpx.URL("/api/v1/films/a%2Bb%20c", query=b"q=%20x+y&q=%2F&empty=")
        answer = await client.request("PATCH", url, content=b"\x00\xff body", headers={"authorization": "Bearer abc"})
        assert answer.status_code == 200
        scope = service.scopes[0]
        assert (scope["method"], scope["raw_path"], scope["query_string"]) == (
            "PATCH",
            b"/api/v1/films/a%2Bb%20c",
            b"q=%20x+y&q=%2F&empty=",
        )
        assert service.bodies == [b"\x00\xff body"]
        assert service.headers()[b"authorization"] == [b"Bearer abc"]


async def test_nobody_speaks_for_the_gateway() -> None:
    service = Recorder()
    forged = {
        "x-forwarded-for": "10.9.9.9",
        "x-forwarded-host": "evil.example",
        "x-real-ip": "10.9.9.9",
        "forwarded": "for=10.9.9.9",
        "x-streamgate-caller": "admin",
        "x-streamgate-deadline": "999",
        "x-original-url": "/metrics",
        "x-hop": "mine",
        "connection": "keep-alive, X-Hop",
        "te": "trailers",
        "proxy-authorization": "Basic abc",
        "host": "evil.example",
        "traceparent": "00-zz-1-00",
        "tracestate": "a=b",
        "grpc-timeout": "1S",
    }
    async with listening(service) as port, gateway(port) as client:
        await client.get("/api/v1/films", headers=forged)
        got = service.headers()
        assert got[b"x-forwarded-for"] == [b"127.0.0.1"]
        assert got[b"host"] == [b"127.0.0.1:%d" % port]
        ours = {b"x-forwarded-for", b"host", b"connection", b"traceparent", b"x-streamgate-deadline"}
        assert not ({name.encode() for name in forged} - ours) & got.keys()
        assert got[b"x-streamgate-deadline"] == [b"27.000"]
        assert b"x-hop" not in b",".join(got.get(b"connection", [])).lower()


async def test_a_service_is_told_how_long_it_has_where_the_body_is_whole() -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port, answer_timeout_s=20) as client:
        for content in (None, b"small"):
            await client.post("/api/v1/films", content=content, headers={"x-streamgate-deadline": "600"})
            assert service.headers()[b"x-streamgate-deadline"] == [b"18.000"]
        await client.post("/api/v1/films", content=_slowly([b"a", b"b"]), headers={"x-streamgate-deadline": "600"})
        assert b"x-streamgate-deadline" not in service.headers()


async def test_a_service_that_is_too_late_says_so_itself_and_is_not_taken_for_away() -> None:
    left: list[float | None] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        left.append(deadline.remaining_s())
        await asyncio.sleep(PATIENT_S)

    service = Edge(slow, metrics=Metrics("films", "0"), clients=Clients(), body_timeout_s=PATIENT_S)
    async with listening(service) as port, gateway(port, answer_timeout_s=2) as client:
        for answer in await asyncio.gather(*(client.get("/api/v1/films") for _ in range(12))):
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            assert "longer than its deadline" in answer.json()["detail"]
    assert all(seconds is not None and seconds < 1.8 for seconds in left)


async def test_request_id_and_trace_context_go_along() -> None:
    service = Recorder()
    sent = {
        "x-request-id": "abcdefgh-1",
        "traceparent": TRACE,
        "tracestate": "congo=t61rcWkgMzE",
    }
    async with listening(service) as port, gateway(port) as client:
        answer = await client.get("/api/v1/films", headers=sent)
        assert answer.headers.get_list("x-request-id") == ["abcdefgh-1"]
        assert {name: service.headers()[name.encode()] for name in sent} == {
            name: [value.encode()] for name, value in sent.items()
        }
        answer = await client.get("/api/v1/films", headers={"x-request-id": "no good"})
        assert service.headers()[b"x-request-id"] == [answer.headers["x-request-id"].encode()]
        (begun,) = service.headers()[b"traceparent"]
        assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)


@pytest.mark.parametrize(
    "malformed",
    ["00-zz-1-00", "ff" + TRACE[2:], "00-" + "0" * 32 + TRACE[35:], TRACE[:36] + "0" * 16 + "-01", TRACE + "\x80"],
)
async def test_a_malformed_trace_context_begins_a_new_trace(malformed: str) -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port) as client:
        sent = {"traceparent": malformed.encode("latin-1"), "tracestate": b"a=b"}
        await client.get("/api/v1/films", headers=sent)
        (begun,) = service.headers()[b"traceparent"]
        assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)
        assert begun != sent["traceparent"]
        assert b"tracestate" not in service.headers()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 206, 304, 416, 302, 460])
async def test_an_answer_comes_back_as_it_was(method: str, status: int) -> None:
    body = b"" if status == 304 else b"\x00\x01moof" * 10
    headers = [
        (b"etag", b'"abc"'),
        (b"content-range", b"bytes 0-59/100"),
        (b"cache-control", b"private, max-age=3"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"location", b"http://elsewhere.example/x?y=%20"),
        (b"access-control-allow-origin", b"*"),
        (b"content-length", b"%d" % (60 if status != 304 else 0)),
    ]

    async def service(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, status, headers, body)

    async with listening(service) as port, gateway(port) as client:
        async with client.stream(method, "/p/token/seg.m4s") as through:
            raw = b"".join([piece async for piece in through.aiter_raw()])
        async with httpx.AsyncClient() as straight, straight.stream(method, f"http://127.0.0.1:{port}/x") as direct:
            expected = b"".join([piece async for piece in direct.aiter_raw()])
        assert (through.status_code, raw) == (status, expected)
        assert len(through.headers.get_list("date")) == 1
        ours = {(name, value) for name, value in through.headers.raw if name not in {b"date", b"x-request-id"}}
        theirs = {(name, value) for name, value in direct.headers.raw if name not in {b"date", b"x-request-id"}}
        assert ours == theirs


@pytest.mark.parametrize("path", ["/p/../metrics", "/p/%2e%2e/metrics", "/p//metrics"])
async def test_dots_lead_nowhere_else(path: str) -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port) as client:
        ear = client.base_url.port
        assert ear is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", ear)
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path.encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert [scope["raw_path"] for scope in service.scopes] == [path.encode()]


async def test_metrics_and_health_of_services_are_not_forwarded() -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port) as client:
        for path in ("/metrics", "/health", "/health/ready", "/api/v1/unknown"):
            assert (await client.get(path)).status_code == 404
        assert (await client.request("TRACE", "/api/v1/films")).status_code == 405
        assert service.scopes == []


def is_unavailable(answer: httpx.Response) -> bool:
    document = answer.json()
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and int(answer.headers["retry-after"]) >= 1
        and document["code"] == "unavailable"
        and document["request_id"] == answer.headers["x-request-id"]
    )


async def test_a_service_that_is_away_is_told_of_at_once_and_found_again_when_it_is_back() -> None:
    port = free_port()
    async with gateway(port) as client:
        for _ in range(15):
            assert is_unavailable(await client.get("/api/v1/films"))
        assert "too often" in (await client.get("/api/v1/films")).json()["detail"]
        async with listening(Recorder(b"back"), port=port):
            async with asyncio.timeout(PATIENT_S):
                while (answer := await client.get("/api/v1/films")).status_code != 200:
                    assert is_unavailable(answer)
                    await asyncio.sleep(0.1)
            assert answer.content == b"back"


async def test_one_service_away_leaves_the_others_alone() -> None:
    async with listening(Recorder(b"here")) as port, gateway(port) as client:
        for _ in range(12):
            assert is_unavailable(await client.post("/away", content=b"x"))
            assert (await client.get("/api/v1/films")).content == b"here"


async def test_an_unknown_service_is_unavailable() -> None:
    async with gateway() as client:
        assert is_unavailable(await client.get("/api/v1/films"))


async def test_replicas_take_turns_and_one_that_is_away_is_passed_over() -> None:
    one, two = Recorder(b"1"), Recorder(b"2")
    async with listening(one) as first, listening(two) as second, gateway(first, free_port(), second) as client:
        names = [(await client.post("/api/v1/films", content=b"all of it")).content for _ in range(12)]
        assert set(names) == {b"1", b"2"}
        assert min(names.count(b"1"), names.count(b"2")) >= 3
        assert {*one.bodies, *two.bodies} == {b"all of it"}

        async def pieces() -> AsyncIterator[bytes]:
            yield b"piece "
            await asyncio.sleep(0.05)
            yield b"by piece"

        for _ in range(3):
            assert (await client.patch("/api/v1/films", content=pieces())).status_code == 200
        assert (one.bodies + two.bodies).count(b"piece by piece") == 3


async def test_a_request_that_was_sent_is_not_sent_to_another_replica() -> None:
    served = 0

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(ends, "127.0.0.1", 0) as hostile:
        port = hostile.sockets[0].getsockname()[1]
        async with gateway(port, port) as client:
            assert is_unavailable(await client.post("/api/v1/films", content=b"x"))
            assert served == 1


class Closing:
    """Answers the first request on each connection and closes it at the next, when that has come, without a word."""

    def __init__(self, *, first: bool = True) -> None:
        self.methods: list[str] = []
        self._first = first

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = self._first
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.methods.append(head.split(b" ", 1)[0].decode())
                size = re.search(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(size[1]) if size else 0)
                if not answers:
                    break
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                answers = False
        writer.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def test_only_what_changes_nothing_is_repeated_when_a_kept_connection_turns_out_closed(method: str) -> None:
    service = Closing()
    async with await asyncio.start_server(service, "127.0.0.1", 0) as server:
        async with gateway(server.sockets[0].getsockname()[1]) as client:
            assert (await client.get("/api/v1/films")).status_code == 204
            answer = await client.request(method, "/api/v1/films", content=b"x" if method.startswith("P") else None)
            if method in {"GET", "HEAD", "OPTIONS"}:
                assert answer.status_code == 204
                assert service.methods == ["GET", method, method]
            else:
                assert is_unavailable(answer)
                assert service.methods == ["GET", method]


async def test_what_is_repeated_comes_out_of_a_budget() -> None:
    good, bad = Recorder(b"good"), Closing(first=False)
    async with await asyncio.start_server(bad, "127.0.0.1", 0) as server, listening(good) as port:
        async with gateway(server.sockets[0].getsockname()[1], port) as client:
            answers = [(await client.get("/api/v1/films")).status_code for _ in range(60)]
    assert len(bad.methods) == 30
    repeated = len(good.scopes) - 30
    assert 10 <= repeated <= 10 + 60 * 0.1
    assert (answers.count(200), answers.count(503)) == (30 + repeated, 30 - repeated)


async def test_a_silent_service_is_given_up() -> None:
    gone: list[bool] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(1 << 16):
                pass
        gone.append(True)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as half_open:
        port = half_open.sockets[0].getsockname()[1]
        async with gateway(port, answer_timeout_s=0.3) as client:
            for content in (None, b"small", _slowly([b"a", b"b"])):
                answer = await client.request("POST", "/api/v1/films", content=content)
                assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            await told(lambda: len(gone) == 3)


async def _slowly(pieces: list[bytes], pause_s: float = 0.05) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(pause_s)
        yield piece


async def test_a_slow_caller_is_not_taken_for_a_silent_service() -> None:
    service = Recorder()
    async with listening(service) as port, gateway(port, answer_timeout_s=0.5) as client:
        answer = await client.patch("/api/v1/films", content=_slowly([b"a", b"b", b"c"], 0.4))
        assert (answer.status_code, service.bodies) == (200, [b"abc"])


@pytest.mark.parametrize("sized", [True, False])
async def test_half_an_answer_is_not_taken_for_a_whole_one(sized: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + (
        b"content-length: 10\r\n\r\n" if sized else b"transfer-encoding: chunked\r\n\r\n5\r\n"
    )

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"12345")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as hostile:
        async with gateway(hostile.sockets[0].getsockname()[1]) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/api/v1/films")


async def test_events_come_through_as_they_happen_and_end_with_the_caller() -> None:
    further, ended = asyncio.Event(), asyncio.Event()

    async def service(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await further.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    async with listening(service) as port, gateway(port) as client:
        async with client.stream("GET", "/api/v1/films") as answer:
            events = answer.aiter_raw()
            assert await anext(events) == b"data: 1\n\n"
            further.set()
            assert await anext(events) == b"data: 2\n\n"
        async with asyncio.timeout(PATIENT_S):
            await ended.wait()


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_caller_that_leaves_in_mid_body_takes_the_service_along(chunked: bool) -> None:
    came: list[Any] = []

    async def service(scope: Any, receive: Any, send: Any) -> None:
        while not came or came[-1].get("more_body"):
            came.append(await receive())

    async with listening(service) as port, gateway(port) as client:
        ear = client.base_url.port
        assert ear is not None
        _, writer = await asyncio.open_connection("127.0.0.1", ear)
        size = b"transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n" if chunked else b"content-length: 10\r\n\r\n12345"
        writer.write(b"PATCH /api/v1/films HTTP/1.1\r\nhost: x\r\n" + size)
        await told(lambda: any(message.get("body") for message in came))
        writer.close()
        await told(lambda: came[-1]["type"] == "http.disconnect")
        assert b"".join(message.get("body", b"") for message in came) == b"12345"


async def test_a_refusal_before_the_body_has_come_reaches_the_caller() -> None:
    async def service(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 413, [(b"content-length", b"3")], b"no!")

    async with listening(service) as port, gateway(port) as client:
        for _ in range(3):
            ear = client.base_url.port
            assert ear is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", ear)
            writer.write(b"PATCH /api/v1/films HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\nsome")
            async with asyncio.timeout(PATIENT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                assert (head[:12], await reader.readexactly(3)) == (b"HTTP/1.1 413", b"no!")
            writer.close()
            assert (await client.get("/api/v1/films")).status_code == 413


def _pss() -> int:
    """Proportional set size of this process in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_body_of_any_size_takes_hardly_any_memory(way: str) -> None:
    piece, count = bytes(range(256)) * 4096, 1024 if way == "up" else 256
    most = 0

    async def service(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        size = 0
        if way == "up":
            await asyncio.sleep(0.5)
            while (message := await receive()).get("more_body"):
                size += len(message["body"])
            size += len(message["body"])
            most = max(most, _pss())
            await respond(send, body=b"%d" % size)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(count):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def source() -> AsyncIterator[bytes]:
        nonlocal most
        for number in range(count):
            yield piece
            if number % 64 == 0:
                most = max(most, _pss())

    async with listening(service) as port, gateway(port) as client:
        before = _pss()
        if way == "up":
            answer = await client.patch("/api/v1/films", content=source())
            assert answer.text == str(count * len(piece))
        else:
            size = 0
            async with client.stream("GET", "/p/film") as stream:
                async for number, part in _numbered(stream.aiter_raw()):
                    size += len(part)
                    if number == 0:
                        await asyncio.sleep(0.5)
                    if number % 1000 == 0:
                        most = max(most, _pss())
            assert size == count * len(piece)
        assert most - before < 32 << 20


async def _numbered(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for piece in pieces:
        yield number, piece
        number += 1
