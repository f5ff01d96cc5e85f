"""How soon what has arrived of an upload plays: from the answer to the bytes that complete a segment until it has been served."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.films import ffmpeg
from benchmarks.playable import POLL_S, minute_of_film, repeated
from benchmarks.report import Figure
from tests.support.arriving import Watched
from tests.support.passed import passed
from tests.support.sending import Sending, listed
from tests.support.server import Server, serving

MINUTES = (10, 60)
RUNS = 5
LATER = (2, 4, 6)
_STEP = 64 << 10
_LAST = 1 << 20
_QUIET_S = 12.0
"""Longer than what is there waits for a look."""


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
            found += _transport(server, folder, data, minutes)
    return found


def _transport(server: Server, folder: Path, film: bytes, minutes: int) -> list[Figure]:
    """The same film as MPEG-TS: its first segment, and its last one after its last byte."""
    path = folder / f"growing-{minutes}.ts"
    copied = ("-i", "pipe:0", "-c", "copy", "-y", str(path))
    subprocess.run((ffmpeg(), "-v", "error", *copied), input=film, check=True)
    data = path.read_bytes()
    with tempfile.TemporaryDirectory() as room:
        seen, end = Watched(data, Path(room), segment_s=4.0), 0
        while not seen.last.count:
            end += _STEP
            seen.look(end)
    times = [_to_its_end(server, data, end) for _ in range(RUNS)]
    what, note = f"of an upload of {minutes} min of MPEG-TS, local disk", f"{end / len(data):.1%} of the film"
    return [
        Figure(f"first segment {what}", tuple(first for first, _ in times), "s", "–", note),
        Figure(
            f"last segment {what}",
            tuple(last for _, last in times),
            "s",
            "–",
            "after its last byte; 1 MiB before it a pause",
        ),
    ]


def _to_its_end(server: Server, data: bytes, end: int) -> tuple[float, float]:
    """Seconds until the first segment is there once its bytes are, and until the last one is once all are."""
    sending = Sending(server, data)
    with sending.http() as http:
        sending.until(end)
        began = time.monotonic()
        base = _played(sending, http)
        first = time.monotonic() - began
        sending.until(len(data) - _LAST)
        count, since = 0, time.monotonic()
        while time.monotonic() - since < _QUIET_S:
            if len(listed(base)) != count:
                count, since = len(listed(base)), time.monotonic()
            time.sleep(1)
        sending.rest()
        began = time.monotonic()
        while "#EXT-X-ENDLIST" not in (text := httpx.get(f"{base}source/playlist.m3u8").text):
            time.sleep(POLL_S)
        httpx.get(f"{base}source/{text.count('#EXTINF') - 1}.m4s").raise_for_status()
        last = time.monotonic() - began
        http.delete(f"/api/v1/assets/{sending.asset_id}").raise_for_status()
    return first, last


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
