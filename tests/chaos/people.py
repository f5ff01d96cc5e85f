"""Who uses the product while it is broken: uploaders, viewers, those who lose their right, and those who never had one.

Each is a function that runs in a thread of its own until it is told to stop. Whatever fails is tried again; only what must
never be is written down as wrong.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chaos.book import Book, Ended, Film, now
from tests.chaos.world import World
from tests.support.product import TUS
from tests.support.wallet import Wallet

PIECE = 48 << 10
TIMES = httpx.Timeout(12, connect=3)
PAUSE_S = 0.4
PATIENCE_S = 60.0
SLACK_S = 0.3
"""Clocks are read on both sides of a request."""

WATCHED_ON_S = 5.0
"""So long after its bound somebody who lost the right goes on trying."""

MOST_WAITING = 6
"""Films that wait to be encoded, after which nobody uploads another."""

Tables = Sequence[Mapping[str, str]]
"""For each source, what each of its objects must hash to: path → SHA-256."""


class ComesAgain(httpx.HTTPTransport):
    """Asks again after 503, for `PATIENCE_S` at most: what is away for a moment is not lost."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = super().handle_request(request)
            if answer.status_code != 503 or time.monotonic() > until:
                return answer
            answer.close()
            time.sleep(float(answer.headers.get("retry-after", 1)))


@dataclass
class Stage:
    """What everybody is given. ``sources``: bytes of the films that are uploaded; ``hashes``: of what they become."""

    world: World
    book: Book
    sources: Sequence[bytes]
    hashes: Tables
    name: str
    stopping: threading.Event = field(default_factory=threading.Event)
    viewer: Wallet = field(default_factory=Wallet)

    @contextmanager
    def client(self, token: str | None = None, *, patient: bool = False) -> Iterator[httpx.Client]:
        """``patient``: it comes again when it is told to."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        transport = ComesAgain() if patient else None
        with httpx.Client(base_url=self.world.url, headers=headers, timeout=TIMES, transport=transport) as http:
            yield http

    def pause(self, seconds: float = PAUSE_S) -> None:
        self.stopping.wait(seconds)

    def ask(self, who: str, http: httpx.Client, method: str, url: str, **more: Any) -> httpx.Response | None:
        """The answer; None when none came: whether it was done is then unknown."""
        try:
            answer = http.request(method, url, **more)
        except (httpx.HTTPError, OSError):
            self.book.count(f"{who} unanswered")
            return None
        if answer.status_code >= 400:
            self.book.answered(who, answer.status_code, answer.text)
        return answer

    def insist(
        self, who: str, http: httpx.Client, method: str, url: str, enough: frozenset[int], **more: Any
    ) -> httpx.Response | None:
        """Ask until one of these statuses comes; None when told to stop before."""
        while not self.stopping.is_set():
            answer = self.ask(who, http, method, url, **more)
            if answer is not None and answer.status_code in enough:
                return answer
            self.pause()
        return None

    def signed_in(self, wallet: Wallet) -> str | None:
        while not self.stopping.is_set():
            try:
                return wallet.sign_in(self.world.url)
            except (AssertionError, httpx.HTTPError):
                self.pause()
        return None


def document(*wallets: Wallet) -> dict[str, Any]:
    """The policy that lets these in."""
    return {"v": 1, "expr": {"allowlist": {"addresses": [wallet.address for wallet in wallets]}}}


def upload(
    stage: Stage, dice: random.Random, token: str, title: str, source: int, *, slowly: bool = True
) -> Film | None:
    """Upload a film under a policy of its own, whatever happens meanwhile; None when told to stop."""
    data = stage.sources[source]
    with stage.client(token) as http:
        policy = document(stage.viewer)
        made = stage.insist(
            "policy", http, "POST", "/api/v1/policies", frozenset({201}), json={"name": title, "document": policy}
        )
        if made is None:
            return None
        policy_id = made.json()["id"]
        told = {"filename": f"{title}.mp4", "title": title, "visibility": "gated", "policy_id": policy_id}
        described = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())
        headers = TUS | {"upload-length": str(len(data)), "upload-metadata": described}
        begun = stage.insist("create", http, "POST", "/api/v1/uploads", frozenset({201}), headers=headers)
        if begun is None:
            return None
        location, asset_id = begun.headers["location"], begun.headers["streamgate-asset"]
        film = Film(title, source, len(data), policy_id, policy, location, asset_id)
        stage.book.begin(film)
        while not film.complete and not stage.stopping.is_set():
            if not go_on(stage, http, film, dice, slowly=slowly):
                stage.pause()
    return film if film.complete else None


def go_on(stage: Stage, http: httpx.Client, film: Film, dice: random.Random, *, slowly: bool) -> bool:
    """Ask where the upload stands, and send some more; False when something failed."""
    book = stage.book
    where = stage.ask("HEAD", http, "HEAD", film.url, headers=TUS)
    if where is None or where.status_code != 200:
        if where is not None and where.status_code in {404, 410}:
            book.wrong(f"{film.title}: an acknowledged upload is gone ({where.status_code})")
        return False
    offset = int(where.headers["upload-offset"])
    if offset < film.acknowledged:
        book.wrong(f"{film.title}: at {offset} after {film.acknowledged} bytes were acknowledged")
    film.acknowledged = max(film.acknowledged, offset)
    if offset == film.size:
        film.complete, film.completed = True, now()
        book.count("uploads")
        return True
    end = min(film.size, offset + dice.randrange(film.size // 8, film.size) if slowly else film.size)
    data = stage.sources[film.source]

    def pieces() -> Iterator[bytes]:
        for at in range(offset, end, PIECE):
            yield data[at : min(at + PIECE, end)]
            if slowly:
                stage.stopping.wait(0.15)

    headers = TUS | {"upload-offset": str(offset), "content-type": "application/offset+octet-stream"}
    headers["content-length"] = str(end - offset)
    sent = stage.ask("PATCH", http, "PATCH", film.url, headers=headers, content=pieces())
    if sent is None or sent.status_code != 204:
        return False
    film.acknowledged = max(film.acknowledged, int(sent.headers["upload-offset"]))
    return True


def uploader(stage: Stage, dice: random.Random) -> None:
    """Uploads one film after the other."""
    token = stage.signed_in(Wallet())
    number = 0
    while token is not None and not stage.stopping.is_set():
        if sum(film.complete and film.state != "ready" for film in stage.book.films) >= MOST_WAITING:
            stage.pause()
            continue
        number += 1
        title = f"{stage.name}-{dice.randrange(1 << 32):08x}-{number}"
        upload(stage, dice, token, title, number % len(stage.sources))
        stage.pause(dice.uniform(0.5, 3))


def lister(stage: Stage) -> None:
    """Follows every film to its end, as an administrator does; one that fails is wrong."""
    with stage.client(stage.world.gateway.admin_key) as http:
        while not stage.stopping.is_set():
            for film in [film for film in stage.book.films if film.complete and film.state != "ready"]:
                look(stage, http, film)
            stage.pause(1)


def look(stage: Stage, http: httpx.Client, film: Film) -> None:
    """Ask for a film's state."""
    answer = stage.ask("asset", http, "GET", f"/api/v1/assets/{film.asset_id}")
    if answer is None:
        return
    if answer.status_code == 200:
        found = answer.json()
        if found["state"] == "failed" != film.state:
            stage.book.wrong(f"{film.title}: failed: {found['error']}")
        film.state = found["state"]
    elif answer.status_code == 404:
        stage.book.wrong(f"{film.title}: an acknowledged film is gone")


def play(stage: Stage, http: httpx.Client, film: Film, who: str) -> httpx.Response | None:
    """Ask for playback."""
    return stage.ask(who, http, "POST", f"/api/v1/assets/{film.asset_id}/playback", json={})


def fetch(stage: Stage, http: httpx.Client, base: str, film: Film, path: str, who: str) -> str:
    """Fetch an object of a film; empty when it is exactly what it must be, else what came instead."""
    answer = stage.ask(who, http, "GET", base + path)
    if answer is None:
        return "unanswered"
    if answer.status_code != 200:
        return str(answer.status_code)
    if hashlib.sha256(answer.content).hexdigest() != stage.hashes[film.source][path]:
        stage.book.wrong(f"{film.title}: {path} is not what it is in a quiet run ({len(answer.content)} bytes)")
    stage.book.count("objects")
    return ""


def viewer(stage: Stage, dice: random.Random) -> None:
    """Watches films from beginning to end."""
    token = stage.signed_in(stage.viewer)
    while token is not None and not stage.stopping.is_set():
        films = stage.book.ready()
        if films:
            with stage.client(token) as http:
                film = dice.choice(films)
                started = play(stage, http, film, "viewer")
                if started is not None and started.status_code == 201:
                    base = started.json()["hls_url"].removesuffix("master.m3u8")
                    for path in stage.hashes[film.source]:
                        if not stage.stopping.is_set():
                            fetch(stage, http, base, film, path, "viewer")
                            stage.pause(0.1)
        stage.pause(0.5)


def always(stage: Stage, film: Film) -> None:
    """Watches the same film over and over, so that all of it is in the caches; writes down when nothing came."""
    token = stage.signed_in(stage.viewer)
    paths = list(stage.hashes[film.source])
    with stage.client(token) as http:
        while (started := play(stage, http, film, "always")) is None or started.status_code != 201:
            if stage.stopping.is_set():
                return
            stage.pause()
        base = started.json()["hls_url"].removesuffix("master.m3u8")
        number = 0
        while not stage.stopping.is_set():
            number += 1
            began = now()
            trouble = fetch(stage, http, base, film, paths[number % len(paths)], "always")
            stage.book.plays.append((began, now(), trouble))
            if trouble in {"401", "403", "404"}:
                stage.book.wrong(f"somebody who may watch was refused ({trouble})")
            stage.pause(0.25)


def stranger(stage: Stage, dice: random.Random) -> None:
    """Tries whatever comes to mind to see a film that is not theirs; no try may ever succeed."""
    token = stage.signed_in(Wallet())
    direct = stage.world.servers["streaming"].url
    while token is not None and not stage.stopping.is_set():
        films = stage.book.ready()
        stage.pause(0.5)
        if not films:
            continue
        film = dice.choice(films)
        for bearer in (None, token):
            for url in (stage.world.url, direct):
                with stage.client(bearer) as http:
                    answer = stage.ask(
                        "stranger", http, "POST", f"{url}/api/v1/assets/{film.asset_id}/playback", json={}
                    )
                    refused(stage, answer, "a stranger began to watch")
        past = [ended for ended in list(stage.book.ended) if ended.after < now()]
        if past:
            ended = dice.choice(past)
            with stage.client() as http:
                url = ended.url.replace(stage.world.url, dice.choice((stage.world.url, direct)))
                refused(stage, stage.ask("stranger", http, "GET", url), f"served after {ended.how}")
                token_at = url.index("/p/") + 3 + dice.randrange(62)
                other = "A" if url[token_at] != "A" else "B"
                forged = url[:token_at] + other + url[token_at + 1 :]
                refused(stage, stage.ask("stranger", http, "GET", forged), "served for a forged token")


def refused(stage: Stage, answer: httpx.Response | None, sentence: str) -> None:
    """Any answer but bytes or a session will do."""
    if answer is None:
        return
    if answer.status_code < 400:
        stage.book.wrong(f"{sentence} ({answer.status_code}, {answer.request.url})")
    else:
        stage.book.count("refused")


Loss = Callable[[Stage, httpx.Client, httpx.Client, Film, Wallet, Mapping[str, Any]], bool]


def stopped(
    stage: Stage, owner: httpx.Client, leaver: httpx.Client, film: Film, wallet: Wallet, started: Mapping[str, Any]
) -> bool:
    """Playback is ended."""
    url = f"/api/v1/playback/{started['session_id']}"
    return stage.insist("end", leaver, "DELETE", url, frozenset({204})) is not None


def signed_out(
    stage: Stage, owner: httpx.Client, leaver: httpx.Client, film: Film, wallet: Wallet, started: Mapping[str, Any]
) -> bool:
    """The session under which playback was begun is ended; once it is, the token is good for nothing."""
    return stage.insist("sign out", leaver, "DELETE", "/api/v1/auth/session", frozenset({204, 401})) is not None


def struck_off(
    stage: Stage, owner: httpx.Client, leaver: httpx.Client, film: Film, wallet: Wallet, started: Mapping[str, Any]
) -> bool:
    """The policy does not name the wallet any more."""
    return admitted(stage, owner, film, stage.viewer)


def admitted(stage: Stage, owner: httpx.Client, film: Film, *wallets: Wallet) -> bool:
    """Change the film's policy so that it names these."""
    told = document(*wallets)
    film.doubtful.append(told)
    url = f"/api/v1/policies/{film.policy_id}"
    done = stage.insist("policy", owner, "PUT", url, frozenset({200}), json={"name": film.title, "document": told})
    if done is None:
        return False
    film.policy, film.doubtful = told, []
    return True


LOSSES: tuple[Loss, ...] = (stopped, signed_out, struck_off)


def leaver(stage: Stage, number: int, of: int) -> None:
    """Begins to watch, loses the right, and goes on asking: from the stated bound on, nothing may come.

    Each has every ``of``-th film for itself, since they change policies.
    """
    losses = itertools.cycle(LOSSES[number % len(LOSSES) :] + LOSSES[: number % len(LOSSES)])
    done: list[Film] = []
    while not stage.stopping.is_set():
        free = [film for film in stage.book.films[number::of] if film.state == "ready" and film not in done]
        if not free:
            stage.pause(0.5)
            continue
        film = free[0]
        done.append(film)
        wallet = Wallet()
        with stage.client(stage.world.gateway.admin_key) as owner:
            if not admitted(stage, owner, film, stage.viewer, wallet) or (token := stage.signed_in(wallet)) is None:
                return
            with stage.client(token) as http:
                started = play(stage, http, film, "leaver")
                if started is None or started.status_code != 201:
                    continue
                leave(stage, owner, http, film, wallet, started.json(), next(losses))


def leave(
    stage: Stage,
    owner: httpx.Client,
    http: httpx.Client,
    film: Film,
    wallet: Wallet,
    started: Mapping[str, Any],
    loss: Loss,
) -> None:
    """Watch, lose the right in that way, and ask until well after the bound."""
    base = started["hls_url"].removesuffix("master.m3u8")
    path = next(path for path in stage.hashes[film.source] if path.endswith("0.m4s"))
    fetch(stage, http, base, film, path, "leaver")
    if not loss(stage, owner, http, film, wallet, started):
        return
    lost = now()
    bound = started["max_staleness_s"] + SLACK_S
    served_for, asked = 0.0, now()
    while not stage.stopping.is_set() and asked < lost + bound + WATCHED_ON_S:
        asked = now()
        if not fetch(stage, http, base, film, path, "leaver"):
            served_for = asked - lost
        stage.pause(0.5)
    stage.book.count(f"left: {loss.__name__}")
    stage.book.served_for(served_for)
    if served_for > bound:
        stage.book.wrong(f"served {served_for:.1f} s after {loss.__name__}, where {bound - SLACK_S:g} s are stated")
    stage.book.end(Ended(base + path, loss.__name__, lost + bound))
