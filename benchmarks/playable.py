"""How soon a film plays after its last byte, by its length; and how soon any place of it does while its ladder is made.

Films are made once. A row has as many runs as its table says: fewer of long films, whose upload takes longest of all.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks.films import ffmpeg
from benchmarks.report import Figure
from tests.support.product import TUS, play
from tests.support.seaweed import seaweed
from tests.support.server import Server, serving

MINUTES = (1, 10, 60, 180)
RUNS = {1: 7, 10: 7, 60: 5, 180: 5}
RUNS_FAR = {1: 7, 10: 5, 60: 3, 180: 3}
"""The same where an upload goes through an object store too, or its ladder is begun at once."""

SCANNED = (1, 60)
"""Minutes of the films that are Matroska, which is read through once: while it comes, as far as it can be followed."""

SEEKS = 20
POLL_S = 0.01
KINDS = {"first": "index first", "last": "index last", "matroska": "Matroska"}
FILM = "H.264/AAC 1080p30, B-frames, key frames up to 250 pictures apart and at cuts, AAC priming"


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Passthrough by length, place of the index and storage; a film that must be encoded; seeks under eager work."""
    films = _films(folder, given)
    with serving(folder / "local") as server:
        found = _by_length(server, films, "local disk", RUNS)
        seeks = tuple(_seeks(server, films[MINUTES[-1], "last"]))
    (folder / "weed").mkdir()
    with seaweed(folder / "weed") as service, serving(folder / "s3", service.settings("instant")) as server:
        found += _by_length(server, films, "S3", RUNS_FAR)
    with serving(folder / "encoded", {"transcoder.passthrough": False}) as server:
        for minutes in MINUTES:
            times = _times(server, films[minutes, "first"], ("360p", "audio-1"), RUNS_FAR[minutes])
            what = f"first 360p segment of a film that must be encoded, {minutes} min"
            found.append(Figure(what, times, "s", "≤ 2 s", f"after the last byte; p95 {p95(times):.2f} s"))
    note = f"random places of a fresh film of {MINUTES[-1]} min; p95 {p95(seeks):.2f} s"
    return [*found, Figure("segment at 360p while the ladder is made", seeks, "s", "p95 ≤ 2.5 s", note)]


def _by_length(server: Server, films: dict[tuple[int, str], Path], storage: str, runs: dict[int, int]) -> list[Figure]:
    found, medians = [], {}
    for (minutes, kind), film in films.items():
        times = _times(server, film, ("source", "audio-1"), runs[minutes])
        medians[minutes, kind] = statistics.median(times)
        what = f"first segment, {minutes} min, {KINDS[kind]}, {storage}"
        note = f"after the last byte; p95 {p95(times):.2f} s"
        found.append(Figure(what, times, "s", "p50 ≤ 0.3 s, p95 ≤ 1 s", note))
    short, long = MINUTES[0], MINUTES[-1]
    for kind in ("first", "last"):
        growth = (medians[long, kind] / medians[short, kind],)
        what = f"{long} min over {short} min, {KINDS[kind]}, {storage}"
        found.append(Figure(what, growth, "times", "≤ 2", f"medians; {FILM}"))
    return found


def _times(server: Server, film: Path, renditions: tuple[str, ...], runs: int) -> tuple[float, ...]:
    times = tuple(_once(server, film, renditions) for _ in range(runs))
    print(f"{film.name}, {renditions[0]}: {statistics.median(times):.2f} s", file=sys.stderr, flush=True)
    return times


def _once(server: Server, film: Path, renditions: tuple[str, ...]) -> float:
    """Seconds from the answer to the last byte until the beginnings of all the renditions have come over HTTP."""
    with uploaded(server, film) as (http, asset_id, began):
        base = playing_at(server, http, asset_id)
        http.get(f"{base}master.m3u8").raise_for_status()
        for name in renditions:
            for part in ("playlist.m3u8", "init.mp4", "0.m4s"):
                http.get(f"{base}{name}/{part}").raise_for_status()
        return time.monotonic() - began


def _seeks(server: Server, film: Path) -> Iterator[float]:
    """Seconds that segments of the lowest rung take, at places where nothing is encoded yet as likely as not."""
    with uploaded(server, film) as (http, asset_id, _):
        base = playing_at(server, http, asset_id)
        count = http.get(f"{base}360p/playlist.m3u8").raise_for_status().text.count("#EXTINF")
        places = random.Random(5).sample(range(count), SEEKS)
        for number in places:
            began = time.monotonic()
            for name in ("360p", "audio-1"):
                http.get(f"{base}{name}/{number}.m4s").raise_for_status()
            yield time.monotonic() - began


@contextlib.contextmanager
def uploaded(server: Server, film: Path) -> Iterator[tuple[httpx.Client, str, float]]:
    """A film, deleted afterwards; its id, and when its last byte was acknowledged."""
    with httpx.Client(timeout=600, headers={"authorization": f"Bearer {server.admin_key}"}) as http:
        made = http.post(f"{server.url}/api/v1/uploads", headers=TUS | {"upload-length": str(film.stat().st_size)})
        asset_id, url = made.headers["streamgate-asset"], made.headers["location"]
        headers = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        with film.open("rb") as file:
            assert http.patch(url, headers=headers, content=iter(lambda: file.read(1 << 20), b"")).status_code == 204
        yield http, asset_id, time.monotonic()
        http.delete(f"{server.url}/api/v1/assets/{asset_id}").raise_for_status()


def playing_at(server: Server, http: httpx.Client, asset_id: str) -> str:
    """The film's media address, once it plays."""
    while True:
        found: dict[str, Any] = http.get(f"{server.url}/api/v1/assets/{asset_id}").json()
        if found["playable"]:
            return str(play(server, asset_id, server.admin_key).json()["hls_url"]).removesuffix("master.m3u8")
        assert found["state"] != "failed", found["error"]
        time.sleep(POLL_S)


def p95(values: tuple[float, ...]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _films(folder: Path, given: Path | None) -> dict[tuple[int, str], Path]:
    """Films by minutes and by where their index stands, made of one minute by copying it."""
    minute = given or minute_of_film(folder)
    films = {
        (minutes, index): repeated(folder, minute, minutes, index) for minutes in MINUTES for index in ("first", "last")
    }
    for minutes in SCANNED:
        film = films[minutes, "matroska"] = folder / f"playable-{minutes}.mkv"
        copied = ("-i", str(films[minutes, "last"]), "-c", "copy")
        subprocess.run((ffmpeg(), "-v", "error", "-y", *copied, str(film)), check=True)
    return films


def repeated(folder: Path, minute: Path, minutes: int, index: str) -> Path:
    """A minute so many times in a row, with the index ``first`` or ``last``."""
    path = folder / f"playable-{minutes}-{index}.mp4"
    flags = ("-movflags", "+faststart") if index == "first" else ()
    loop = ("-stream_loop", str(minutes - 1), "-i", str(minute), "-c", "copy", *flags)
    subprocess.run((ffmpeg(), "-v", "error", "-y", *loop, str(path)), check=True)
    return path


def minute_of_film(folder: Path) -> Path:
    """A minute whose picture turns into its negative every few seconds, which is a cut to the encoder."""
    path = folder / "playable.mp4"
    picture = "testsrc2=s=1920x1080:r=30:d=60,negate=enable='lt(mod(t,11),5)',format=yuv420p"
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=f=330:b=4:d=60:r=48000")
    video = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "250", "-b:v", "600k")
    audio = ("-c:a", "aac", "-ac", "2", "-b:a", "96k")
    subprocess.run((ffmpeg(), "-v", "error", "-y", *inputs, *video, *audio, str(path)), check=True)
    return path
