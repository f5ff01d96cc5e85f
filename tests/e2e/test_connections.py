"""Connections that misbehave before there is a request."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.product import TUS
from tests.support.server import Server, serving

# Every service listens in the same way.
pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a second and a half for headers, and as long for a body."""
    settings = {"header_timeout": 1.5, "body_timeout": 1.5}
    with serving(tmp_path_factory.mktemp("impatient") / "data", settings) as server:
        yield server


def answer(server: Server, sent: bytes, timeout_s: float = 10) -> tuple[int, dict[str, object]]:
    """Status and body of what a raw request is answered with; (0, {}) when the connection is just closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as line:
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            while data := line.recv(65536):
                received += data
    if not received:
        return 0, {}
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else {}


def test_headers_that_are_too_long_are_refused(impatient: Server) -> None:
    for header in (b"X: " + b"a" * 300_000, b"\r\n".join(b"X%d: " % n + b"a" * 1000 for n in range(300))):
        status, body = answer(impatient, b"GET / HTTP/1.1\r\nHost: x\r\n" + header)
        assert (status, body.get("code")) in {(413, "payload_too_large"), (0, None)}
    url = b"GET /" + b"a" * 300_000
    assert answer(impatient, url)[0] in {413, 0}


def test_what_is_no_http_is_a_problem_document(impatient: Server) -> None:
    status, body = answer(impatient, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert (status, body["code"]) == (422, "validation_failed")


def test_headers_that_never_end_are_not_waited_for(impatient: Server) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as line:
        began = time.monotonic()
        line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert line.recv(100) == b""
        assert 1 < time.monotonic() - began < 5


def test_a_slow_drip_is_cut_off_too(impatient: Server) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as line:
        line.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        cut = False
        while not cut and time.monotonic() - began < 10:
            time.sleep(0.2)
            try:
                line.sendall(b"X: y\r\n")
            except (ConnectionResetError, BrokenPipeError):
                cut = True
        assert cut
        assert time.monotonic() - began < 5


def test_a_body_may_take_its_time_and_its_size(impatient: Server) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * 60_000
            time.sleep(0.6)

    with impatient.admin() as http:
        url = http.post("/api/v1/uploads", headers=TUS | {"upload-length": "300000"}).headers["location"]
        headers = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        assert http.patch(url, headers=headers, content=slowly()).status_code == 204


def test_an_ordinary_connection_lives_on_between_requests(impatient: Server) -> None:
    with httpx.Client() as http:
        for pause in (0.0, 2.0, 0.0):
            time.sleep(pause)
            assert http.get(f"{impatient.url}/health/live").status_code == 200
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as line:
        request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        line.sendall(request * 3)
        time.sleep(0.3)
        received = line.recv(65536)
        time.sleep(1.6)
        line.sendall(request)
        time.sleep(0.3)
        received += line.recv(65536)
    assert received.count(b"HTTP/1.1 200") == 4


def test_a_body_that_never_ends_is_not_waited_for(impatient: Server) -> None:
    began = time.monotonic()
    head = f"POST /api/v1/policies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient.admin_key}\r\n"
    body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    status, refused = answer(impatient, (head + body).encode())
    assert (status, refused["code"]) == (504, "deadline_exceeded")
    assert 1 < time.monotonic() - began < 6


def test_a_body_that_drips_is_not_waited_for(impatient: Server) -> None:
    head = f"POST /api/v1/policies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient.admin_key}\r\n"
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=10) as line:
        line.sendall((head + "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n").encode())
        line.settimeout(0.4)
        received = b""
        while not received and time.monotonic() - began < 8:
            line.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                received = line.recv(65536)
    assert received.startswith(b"HTTP/1.1 504")
