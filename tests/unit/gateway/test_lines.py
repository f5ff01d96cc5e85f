"""Connections to services: what an answer may look like, and when a connection is used again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from streamgate.domain.errors import ValidationFailed
from streamgate.plugins.api_gateway.crossing import head
from streamgate.plugins.api_gateway.lines import MOST_HEAD, LineFailed, Lines, NotConnected
from streamgate.ports.discovery import Address
from tests.support.server import free_port

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
PATIENT_S = 30.0

Ask = Callable[..., Coroutine[Any, Any, tuple[int, bytes]]]


class Service:
    """Answers each request with the next of these, as it stands; an empty one ends the connection."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while self._answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self._answers.pop(0)
                writer.write(answer)
                if not answer or b"\r\nconnection: close\r\n" in answer:
                    break
            else:
                await reader.read()
        writer.close()
        self.ended.set()


@contextlib.asynccontextmanager
async def before(service: Service) -> AsyncIterator[Ask]:
    """Ask the service by connections that are kept: status, and the whole body."""
    server = await asyncio.start_server(service, "127.0.0.1", 0)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    lines = Lines(PATIENT_S)

    async def ask(method: str = "GET") -> tuple[int, bytes]:
        line = await lines.to(address)
        whole = False
        try:
            async with asyncio.timeout(PATIENT_S):
                status = await line.ask(GET.replace(b"GET", method.encode()), None, method)
                body = b""
                while not whole:
                    piece, whole = await line.read()
                    body += piece
                return status, body
        finally:
            lines.back(line, whole=whole)

    try:
        yield ask
    finally:
        lines.close()
        server.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
KEPT = {
    "sized": (OK, "GET", (200, b"ok")),
    "in chunks, with a trailer": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nx-sum: 1\r\n\r\n",
        "GET",
        (200, b"ok"),
    ),
    "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", (204, b"")),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "GET", (304, b"")),
    "of HEAD": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "HEAD", (200, b"")),
    "after a provisional one": (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK, "GET", (200, b"ok")),
}


@pytest.mark.parametrize("kind", KEPT)
async def test_after_a_whole_answer_the_connection_serves_the_next_request(kind: str) -> None:
    answer, method, told = KEPT[kind]
    service = Service(answer, OK, answer)
    async with before(service) as ask:
        assert [await ask(method), await ask(), await ask(method)] == [told, (200, b"ok"), told]
    assert (service.connections, len(service.requests)) == (1, 3)


NOT_KEPT = {
    "that says so": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
    "that only its end ends": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "with another behind it": OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    "with more than it said": OK + b"k",
}


@pytest.mark.parametrize("kind", NOT_KEPT)
async def test_after_an_answer_of_another_kind_the_next_request_has_a_new_connection(kind: str) -> None:
    service = Service(NOT_KEPT[kind], OK)
    async with before(service) as ask:
        with contextlib.suppress(LineFailed):
            assert await ask() == (200, b"ok")
        assert await ask() == (200, b"ok")
    assert service.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01 nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MOST_HEAD // 6 + 1),
    ],
)
async def test_what_is_no_answer_is_none(answer: bytes) -> None:
    service = Service(answer)
    async with before(service) as ask:
        with pytest.raises(LineFailed):
            await ask()
        async with asyncio.timeout(PATIENT_S):
            await service.ended.wait()


async def test_where_nobody_listens_there_is_no_connection() -> None:
    with pytest.raises(NotConnected):
        await Lines(PATIENT_S).to(Address("127.0.0.1", free_port()))


@pytest.mark.parametrize("value", [b"a\r\nx-streamgate-caller: admin", b"a\nb", b"a\rb", b"a\0b"])
def test_no_part_of_a_request_ends_its_line(value: bytes) -> None:
    assert head("GET", b"/", [(b"x", b"a")]) == b"GET / HTTP/1.1\r\nx: a\r\n\r\n"
    for target, headers in ((b"/" + value, []), (b"/", [(b"x", value)]), (b"/", [(value, b"x")])):
        with pytest.raises(ValidationFailed):
            head("GET", target, headers)
