"""How soon what has arrived of an upload plays: from the answer to the bytes that complete a segment until it has been served."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from benchmarks.playable import POLL_S, minute_of_film, repeated
from benchmarks.report import Figure
from tests.support.passed import passed
from tests.support.sending import Sending
from tests.support.server import Server, serving

MINUTES = (10, 60)
RUNS = 5
LATER = (2, 4, 6)


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """The first segment, and later ones, of films that are sent as far as those need."""
    minute = given or minute_of_film(folder)
    found = []
    with serving(folder / "growing") as server:
        for minutes in MINUTES:
            data = repeated(folder, minute, minutes, "first").read_bytes()
            index = passed(data).index
            assert index.video is not None
            tracks = (index.video, *index.audio)
            ends = [max(int(track.needed[n]) for track in tracks) for n in (0, *LATER)]
            first, later = [], []
            for _ in range(RUNS):
                times = _once(server, data, ends)
                first.append(times[0])
                later += times[1:]
            what = f"of an upload of {minutes} min, local disk"
            note = f"after the answer to its last byte, video and sound; {ends[0] / len(data):.1%} of the film"
            found.append(Figure(f"first segment {what}", tuple(first), "s", "–", note))
            found.append(Figure(f"a later segment {what}", tuple(later), "s", "–", "the same"))
    return found


def _once(server: Server, data: bytes, ends: list[int]) -> list[float]:
    """Seconds from each answer to the bytes up to an end until the segment that they complete has come."""
    sending, base, times = Sending(server, data), "", []
    with sending.http() as http:
        for number, end in zip((0, *LATER), ends, strict=True):
            sending.until(end)
            began = time.monotonic()
            base = base or _played(sending, http)
            for rendition in ("source", "audio-1"):
                while httpx.get(f"{base}{rendition}/{number}.m4s").status_code != 200:
                    time.sleep(POLL_S)
            times.append(time.monotonic() - began)
        http.delete(sending.path, headers={"tus-resumable": "1.0.0"}).raise_for_status()
    return times


def _played(sending: Sending, http: httpx.Client) -> str:
    while not http.get(f"/api/v1/assets/{sending.asset_id}").json()["playable"]:
        time.sleep(POLL_S)
    return sending.base()
