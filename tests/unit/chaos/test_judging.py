"""The judge of the fault runs: a product that breaks its word is found out, one that is only away is not."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.book import Book, Film, now
from tests.chaos.faults import COMBINATIONS, not_done, schedule
from tests.chaos.people import Stage, fetch, go_on, leave, look, refused, stopped
from tests.support.wallet import Wallet

Answer = tuple[int, dict[str, str], bytes]


class Product:
    """Answers every request with what ``says`` returns for its method and path."""

    def __init__(self) -> None:
        self.says: Callable[[str, str], Answer] = lambda method, path: (503, {}, b"")
        product = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                self.raw_requestline = self.rfile.readline()
                if self.parse_request():
                    self.rfile.read(int(self.headers.get("content-length", 0)))
                    status, headers, body = product.says(self.command, self.path)
                    self.send_response(status)
                    for name, value in {**headers, "content-length": str(len(body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def product() -> Iterator[Product]:
    made = Product()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def stage(product: Product) -> Stage:
    world: Any = SimpleNamespace(url=product.url)
    return Stage(world, Book(), [b"0123456789"], [{"240p/0.m4s": hashlib.sha256(b"right").hexdigest()}], "t")


@pytest.fixture
def film(product: Product) -> Film:
    return Film("t-1", 0, 10, "pol_1", {}, f"{product.url}/u", "ast_1", acknowledged=6)


def at(offset: int) -> Callable[[str, str], Answer]:
    return lambda method, path: (200, {"upload-offset": str(offset)}, b"")


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (at(5), "at 5 after 6 bytes were acknowledged"),
        (lambda method, path: (404, {}, b""), "an acknowledged upload is gone (404)"),
        (lambda method, path: (503, {}, b""), ""),
        (at(10), ""),
    ],
)
def test_a_lost_byte_is_found_out(
    product: Product, stage: Stage, film: Film, says: Callable[[str, str], Answer], found: str
) -> None:
    product.says = says
    with stage.client() as http:
        go_on(stage, http, film, random.Random(1), slowly=False)
    assert stage.book.violations == ([f"t-1: {found}"] if found else [])


def test_what_is_away_for_a_moment_is_asked_for_again(product: Product, stage: Stage) -> None:
    answers = iter([(503, {"retry-after": "0"}, b""), (503, {"retry-after": "0"}, b""), (200, {}, b"there")])
    product.says = lambda method, path: next(answers)
    with stage.client(patient=True) as http:
        assert http.get("/").content == b"there"


def test_other_bytes_than_in_a_quiet_run_are_found_out(product: Product, stage: Stage, film: Film) -> None:
    product.says = lambda method, path: (200, {}, b"wrong")
    with stage.client() as http:
        assert fetch(stage, http, f"{product.url}/", film, "240p/0.m4s", "viewer") == ""
    assert stage.book.violations == ["t-1: 240p/0.m4s is not what it is in a quiet run (5 bytes)"]


@pytest.mark.parametrize(
    ("answer", "violations"),
    [((404, {}, b""), 1), ((200, {}, b'{"state": "failed", "error": {"code": "internal"}}'), 1), ((500, {}, b""), 0)],
)
def test_a_film_that_is_gone_or_failed_is_found_out(
    product: Product, stage: Stage, film: Film, answer: Answer, violations: int
) -> None:
    product.says = lambda method, path: answer
    with stage.client() as http:
        look(stage, http, film)
        look(stage, http, film)
    assert len(set(stage.book.violations)) == violations
    assert len(stage.book.untyped) == (2 if answer[0] == 500 else 0)


def test_whoever_gets_in_without_a_right_is_found_out(product: Product, stage: Stage) -> None:
    with stage.client() as http:
        for status in (401, 403, 404, 503):
            product.says = lambda method, path, status=status: (status, {}, b"")
            refused(stage, stage.ask("stranger", http, "GET", "/"), "in")
        assert stage.book.violations == []
        product.says = lambda method, path: (201, {}, b"")
        refused(stage, stage.ask("stranger", http, "GET", "/"), "in")
    assert len(stage.book.violations) == 1


@pytest.mark.parametrize(("served_s", "wrong"), [(0.3, False), (1.2, True)])
def test_bytes_beyond_the_stated_bound_are_found_out(
    product: Product, stage: Stage, film: Film, served_s: float, wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.people.WATCHED_ON_S", 1.0)
    until = [float("inf")]

    def says(method: str, path: str) -> Answer:
        if method == "DELETE":
            until[0] = now() + served_s
            return 204, {}, b""
        return (200, {}, b"right") if now() < until[0] else (403, {}, b"")

    product.says = says
    started = {"session_id": "pbs_1", "hls_url": f"{product.url}/master.m3u8", "max_staleness_s": 0.2}
    with stage.client() as http:
        leave(stage, http, http, film, Wallet(), started, stopped)
    assert [sentence.endswith("where 0.2 s are stated") for sentence in stage.book.violations] == [True] * wrong
    assert [ended.how for ended in stage.book.ended] == ["stopped"]


def test_a_seed_brings_the_same_faults_again_and_every_one_of_them() -> None:
    first, again, other = (list(itertools.islice(schedule(seed), 62)) for seed in (1, 1, 2))
    assert first == again != other
    assert not_done(first[: len(COMBINATIONS)]) == []
    assert len(not_done(first[: len(COMBINATIONS) - 1])) == 1


def test_the_longest_time_without_a_byte_counts_from_answer_to_answer() -> None:
    book = Book()
    book.plays = [(0.0, 0.1, ""), (1.0, 1.1, "503"), (2.0, 2.1, "unanswered"), (3.0, 3.1, ""), (4.0, 4.1, "")]
    assert book.gaps(0.0, 5.0)[0] == (0.1, 3.0)
