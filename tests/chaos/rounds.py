"""A round: people use the product, faults happen at their times, and afterwards it is judged whether everything held."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.book import Book, Film, shown
from tests.chaos.faults import Fault, by_kind
from tests.chaos.people import (
    Stage,
    always,
    fetch,
    go_on,
    leaver,
    lister,
    look,
    play,
    stranger,
    upload,
    uploader,
    viewer,
)
from tests.chaos.world import World
from tests.support.films import film as made_film
from tests.support.product import TUS
from tests.support.wallet import Wallet

UPLOADERS, VIEWERS, LEAVERS = 2, 1, 2
JOIN_S = 60
NOTICED_S = 0.6
"""A fault is felt that soon after the last bytes that still came."""

SETTLED_S = 180
"""Seconds after the last fault within which everything must be well."""
COLUMNS = (
    "round",
    "faults",
    "uploads",
    "films ready",
    "objects equal",
    "refused",
    "latest",
    "longest gap",
    "recovered",
    "verdict",
)


@dataclass(frozen=True)
class Result:
    """A round as it went."""

    number: int
    faults: tuple[Fault, ...]
    book: Book
    recovered_s: float
    gaps: Mapping[str, float]
    troubles: tuple[str, ...]

    @property
    def row(self) -> tuple[str, ...]:
        counts, ready = self.book.counts, len(self.book.ready())
        return (
            str(self.number),
            by_kind(self.faults),
            str(counts["uploads"]),
            f"{ready} of {sum(film.complete for film in self.book.films)}",
            str(counts["objects"]),
            str(counts["refused"]),
            f"{self.book.longest_served_s:.1f} s",
            f"{max(self.gaps.values(), default=0):.1f} s",
            f"{self.recovered_s:.1f} s",
            "good" if not self.troubles else "BAD",
        )


def sources(folder: Path) -> list[bytes]:
    """Two films of some seconds that are quick to encode."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = ({"seconds": 6, "audio": "stereo"}, {"seconds": 4, "audio": "mono"})
    return [made_film(folder, width=428, height=240, fps=15, **shape).read_bytes() for shape in shapes]


@dataclass(frozen=True)
class Quiet:
    """What came out while nothing was broken: ``hashes`` of each source, a film that stays, and who may watch it."""

    sources: list[bytes]
    hashes: list[Mapping[str, str]]
    film: Film
    viewer: Wallet


def quiet(world: World, films: list[bytes]) -> Quiet:
    """Upload every source and see what becomes of it."""
    wallet, tables, kept = Wallet(), [], []
    token = wallet.sign_in(world.url)
    stage = Stage(world, Book(), films, tables, "quiet", viewer=wallet)
    for source in range(len(films)):
        found = upload(stage, random.Random(source), token, f"quiet-{source}", source, slowly=False)
        assert found is not None
        kept.append(found)
        with stage.client(token) as http:
            until = time.monotonic() + 120
            while found.state != "ready":
                look(stage, http, found)
                assert time.monotonic() < until, f"not encoded in a quiet run: {found}"
                time.sleep(0.2)
            started = http.post(f"/api/v1/assets/{found.asset_id}/playback", json={}).json()
            tables.append(objects(http, started["hls_url"].removesuffix("master.m3u8")))
    assert not stage.book.violations, stage.book.violations
    return Quiet(films, tables, kept[0], wallet)


def objects(http: httpx.Client, base: str) -> dict[str, str]:
    """Every segment and init segment of a film, by path, with its hash."""
    found = {}
    for playlist in re.findall(r'(?m)^([^#\n]+\.m3u8)|URI="([^"]+\.m3u8)"', http.get(base + "master.m3u8").text):
        name = next(part for part in playlist if part)
        if "iframe" in name:
            continue
        folder = name.rpartition("/")[0]
        text = http.get(base + name).text
        for path in re.findall(r'(?m)^([^#\n]+\.m4s)$|URI="([^"]+\.mp4)"', text):
            full = f"{folder}/{next(part for part in path if part)}"
            answer = http.get(base + full)
            assert answer.status_code == 200, answer.text
            found[full] = hashlib.sha256(answer.content).hexdigest()
    assert found
    return found


def run(world: World, calm: Quiet, number: int, faults: list[Fault], every_s: float, seed: int) -> Result:
    """One round: a fault every so many seconds, at fixed times."""
    stage = Stage(world, Book(), calm.sources, calm.hashes, f"r{number}", viewer=calm.viewer)
    seen = len(world.done)
    began = time.monotonic()
    with crowd(stage, calm.film, seed + number):
        broken = [
            threading.Thread(target=_at, args=(began + (i + 1) * every_s, world, fault, stage.book), daemon=True)
            for i, fault in enumerate(faults)
        ]
        for thread in broken:
            thread.start()
        for thread in broken:
            thread.join()
        healed = time.monotonic()
        recovered_s = settle(stage, healed)
    ended = time.monotonic()
    _guarded(stage.book, final, (stage,))
    done = world.done[seen:]
    gaps = longest_gaps(stage.book, done, ended)
    (world.folder / f"timeline-{number}").write_text(timeline(stage.book, done, began, ended))
    troubles = [*stage.book.violations, *stage.book.untyped]
    if len(done) < len(faults):
        troubles.append(f"only {len(done)} of {len(faults)} faults could be done")
    return Result(number, tuple(fault for _, fault in done), stage.book, recovered_s, gaps, tuple(troubles))


def _at(moment: float, world: World, fault: Fault, book: Book) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
    try:
        world.do(fault)
    except Exception as error:
        book.wrong(f"{fault} could not be done: {error!r}")


@contextlib.contextmanager
def crowd(stage: Stage, film: Film, seed: int) -> Iterator[None]:
    """Everybody at work; at the end they are told to stop, and do."""
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(always, (stage, film)), (lister, (stage,))]
    dice = (random.Random(f"{seed}-{number}") for number in itertools.count())
    work += [(uploader, (stage, next(dice))) for _ in range(UPLOADERS)]
    work += [(viewer, (stage, next(dice))) for _ in range(VIEWERS)]
    work += [(leaver, (stage, one, LEAVERS)) for one in range(LEAVERS)]
    work += [(stranger, (stage, next(dice)))]
    threads = [threading.Thread(target=_guarded, args=(stage.book, who, given), daemon=True) for who, given in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stage.stopping.set()
        for thread in threads:
            thread.join(JOIN_S)
            if thread.is_alive():
                stage.book.wrong("somebody was kept waiting without end")


def _guarded(book: Book, who: Callable[..., None], given: tuple[Any, ...]) -> None:
    try:
        who(*given)
    except Exception as error:
        book.wrong(f"{who.__name__} ended: {error!r}")


def settle(stage: Stage, healed: float) -> float:
    """Wait until all is well again, with nobody's help; seconds that it took since ``healed``."""
    book = stage.book
    until = healed + SETTLED_S
    missing = stage.world.ready(until - time.monotonic())
    if missing:
        book.wrong(f"not ready again: {', '.join(missing)}")
    waiting, played = list[Film](), False
    while time.monotonic() < until:
        waiting = [film for film in book.films if film.complete and film.state not in {"ready", "failed"}]
        played = any(answered > healed and not trouble for _, answered, trouble in book.plays[-5:])
        # Whoever uploads goes on meanwhile; of those, the ones that were begun in time count.
        if played and not [film for film in waiting if film.completed < healed]:
            return time.monotonic() - healed
        time.sleep(0.1)
    late = [f"{film.title} {film.state}" for film in waiting if film.completed < healed]
    book.wrong(f"not well again after {SETTLED_S} s: {', '.join(late[:10])}" + ("" if played else "; nothing plays"))
    return time.monotonic() - healed


def final(stage: Stage) -> None:
    """Nobody uses the product any more: read everything back and compare it with what was acknowledged."""
    stage.stopping.clear()
    book, world = stage.book, stage.world
    deadline = time.monotonic() + SETTLED_S
    with stage.client(world.gateway.admin_key, patient=True) as owner:
        for film in book.films:
            while not film.complete and time.monotonic() < deadline:
                go_on(stage, owner, film, random.Random(0), slowly=False)
        for film in book.films:
            while film.state not in {"ready", "failed"} and time.monotonic() < deadline:
                look(stage, owner, film)
                time.sleep(0.2)
            if film.state != "ready":
                book.wrong(f"{film.title}: {film.state or 'unknown'}, not ready without a hand")
            read_back(stage, owner, film)
    with stage.client(stage.signed_in(stage.viewer), patient=True) as http:
        for film in book.ready():
            watched(stage, http, film)
    with stage.client(patient=True) as nobody:
        for ended in book.ended:
            answer = nobody.get(ended.url)
            if answer.status_code != 403:
                book.wrong(f"{ended.how}: answered with {answer.status_code} at the end")


def read_back(stage: Stage, owner: httpx.Client, film: Film) -> None:
    """The upload's offset, the film and its policy are those that were acknowledged."""
    book = stage.book
    where = owner.head(film.url, headers=TUS)
    offset = int(where.headers.get("upload-offset", -1))
    if offset != film.size or where.headers.get("streamgate-asset") != film.asset_id:
        book.wrong(f"{film.title}: the upload says {where.status_code} at {offset} of {film.size}")
    found = owner.get(f"/api/v1/assets/{film.asset_id}").json()
    if (found.get("title"), found.get("visibility"), found.get("policy_id")) != (film.title, "gated", film.policy_id):
        book.wrong(f"{film.title}: the film is {found}")
    policy = owner.get(f"/api/v1/policies/{film.policy_id}").json()
    if policy.get("document") not in [film.policy, *film.doubtful]:
        book.wrong(f"{film.title}: the policy is {policy}, not {film.policy}")


def watched(stage: Stage, http: httpx.Client, film: Film) -> None:
    """Everything of the film, from beginning to end, is what it is in a quiet run."""
    started = play(stage, http, film, "final")
    if started is None or started.status_code != 201:
        stage.book.wrong(f"{film.title}: cannot be watched at the end ({started and started.text})")
        return
    base = started.json()["hls_url"].removesuffix("master.m3u8")
    for path in stage.hashes[film.source]:
        if trouble := fetch(stage, http, base, film, path, "final"):
            stage.book.wrong(f"{film.title}: {path} at the end: {trouble}")


def longest_gaps(book: Book, done: list[tuple[float, Fault]], ended: float) -> dict[str, float]:
    """For each kind and target, the longest time without a byte for the one who always watches that began under it."""
    found: dict[str, float] = {}
    if not book.plays:
        return found
    for began, length in book.gaps(book.plays[0][0], ended):  # longest first
        before = [fault for moment, fault in done if moment <= began + NOTICED_S]
        if before:
            found.setdefault(str(before[-1]), length)
    return found


def timeline(book: Book, done: list[tuple[float, Fault]], began: float, ended: float) -> str:
    """What happened when, in seconds: faults, and times of more than a second without a byte."""
    events = [(moment, f"{fault} for {fault.seconds:g} s") for moment, fault in done]
    events += [(moment, f"    no byte for {length:.1f} s") for moment, length in book.gaps(began, ended) if length > 1]
    events += [
        (asked, f"    {trouble} after {answered - asked:.1f} s") for asked, answered, trouble in book.plays if trouble
    ]
    return "".join(f"{moment - began:7.1f}  {what}\n" for moment, what in sorted(events))


def table(results: list[Result]) -> str:
    """The rounds as a Markdown table."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(result.row for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def explained(result: Result) -> str:
    """What went wrong in a round."""
    return f"round {result.number}:\n{shown(result.troubles)}" if result.troubles else ""
