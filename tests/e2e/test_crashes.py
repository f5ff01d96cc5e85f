"""The server is killed twenty times while it takes an upload and encodes a film: both are whole in the end."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streamgate.packaging.indexes import divided
from tests.support.films import by_ffmpeg, film, moving, tone
from tests.support.inside import content, keys
from tests.support.passed import passed
from tests.support.product import TUS, asset, play, probe, problem, upload, wait_final, wait_playable
from tests.support.server import Server, serving, wait_for

KILLS = 20
SEED = 20261124
PIECE = 64 << 10
SIZE = 60_000_000

# One process dies with everything; a service that dies alone is a fault of another kind.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.embedded]


class Client:
    """Uploads as long as it is not done: asks for the offset, sends from there, in small pieces and in several requests.

    ``pause_s``: between two pieces.
    """

    def __init__(self, server: Server, url: str, data: bytes, dice: random.Random, pause_s: float) -> None:
        self._server, self._url, self._data, self._dice = server, url, data, dice
        self.pause_s = pause_s
        self.acknowledged = 0
        self.offsets: list[int] = []
        self.done = threading.Event()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with self._server.admin() as http:
                    self._go_on(http)
            except (httpx.HTTPError, OSError):
                time.sleep(0.05)

    def _go_on(self, http: httpx.Client) -> None:
        answer = http.head(self._url, headers=TUS)
        if answer.status_code != 200:
            return
        offset = int(answer.headers["upload-offset"])
        self.offsets.append(offset)
        if offset < self.acknowledged:
            self.wrong.append(f"at {offset} after {self.acknowledged} were acknowledged")
        if offset == len(self._data):
            self.done.set()
            return
        end = min(len(self._data), offset + self._dice.randrange(1, 2_000_000))
        headers = TUS | {
            "upload-offset": str(offset),
            "content-type": "application/offset+octet-stream",
            "content-length": str(end - offset),
        }
        sent = http.patch(self._url, headers=headers, content=self._pieces(offset, end))
        if sent.status_code == 204:
            self.acknowledged = int(sent.headers["upload-offset"])

    def _pieces(self, begin: int, end: int) -> Iterator[bytes]:
        for at in range(begin, end, PIECE):
            yield self._data[at : min(at + PIECE, end)]
            time.sleep(self.pause_s)


def test_twenty_kills_cost_time_and_nothing_else(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    source, data = film(tmp_path, seconds=48), random.Random(1).randbytes(SIZE)
    server = Server(
        tmp_path / "data",
        {"transcoder.rungs": [240, 360], "transcoder.preset": "slow", "transcoder.passthrough": False},
    )
    server.start()
    asset_id = upload(server, source, visibility="public")
    with server.admin() as http:
        made = http.post("/api/v1/uploads", headers=TUS | {"upload-length": str(SIZE)})
    url, uploaded_id = made.headers["location"], made.headers["streamgate-asset"]
    client = Client(server, url, data, random.Random(SEED), pause_s=0.012)
    sending = threading.Thread(target=client.run, daemon=True)
    killed_at, children = [], 0
    try:
        sending.start()
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.05, 0.8))
            killed_at.append(asset(server, asset_id)["progress"])
            assert server.process is not None
            killed = server.process.pid
            children += len(children_of(killed))
            server.kill()
            wait_for(lambda pid=killed: not children_of(pid), 5)
            server.start()
        assert not client.done.is_set(), "the upload was done before the last kill"
        assert killed_at[-1] < 1.0, "the film was encoded before the last kill"
        client.pause_s = 0
        assert client.done.wait(120), client.offsets[-5:]
        sending.join(10)
        check_upload(server, client, url, uploaded_id)
        found = wait_final(server, asset_id, 240)
        assert found["state"] == "ready"
        assert found["warnings"] == []
        assert children >= KILLS
        assert killed_at == sorted(killed_at), "what was encoded was lost"
        check_film(server, source, asset_id)
        assert wait_final(server, uploaded_id)["state"] == "failed"
        assert server.stop() == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    check_rows(server, asset_id)
    stored = (server.data_dir / "objects" / "uploads" / url.rsplit("/", 1)[1] / "0").read_bytes()
    assert len(stored) == SIZE
    assert stored == data
    assert len(os.listdir(server.data_dir / "objects" / "uploads")) == 2


def test_a_kill_before_all_of_an_index_is_stored_costs_a_moment(tmp_path: Path) -> None:
    """The film plays by then; what of its index is there after the kill is what it began to play with, as at the worst moment."""
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "100", "-c:a", "aac", "-b:a", "32k", "-ac", "1")
    part = by_ffmpeg(tmp_path, "part.mp4", *moving(20, "64x48"), *tone(20), *coded, "-shortest")
    hour = by_ffmpeg(tmp_path, "hour.mp4", "-stream_loop", "179", "-i", str(part), "-c", "copy")
    known = passed(hour)
    assert known.index.video is not None
    number = len(known.index.video.boundaries) * 3 // 4
    tracks = {"source": known.index.video, "audio-1": known.index.audio[0]}
    late = {name: known.segments(track)[number] for name, track in tracks.items()}
    with serving(tmp_path / "data") as server:
        asset_id = upload(server, hour, visibility="public")
        wait_playable(server, asset_id)
        server.kill()
        (front,) = [key for key in keys(server, f"assets/{asset_id}") if key.endswith("/index/front")]
        index = divided(front.removesuffix("/front"), known.index.blob)
        assert content(server, front) == known.index.blob[: index.front]
        for key, _ in index.rest():
            (server.data_dir / "objects" / key).unlink(missing_ok=True)
        server.start()
        base = play(server, asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
        for name in late:
            assert httpx.get(f"{base}{name}/0.m4s").status_code == 200
            early = httpx.get(f"{base}{name}/{number}.m4s")
            assert early.status_code == 503
            assert (problem(early), early.headers["retry-after"]) == ((503, "unavailable"), "1")
        for name, segment in late.items():
            wait_for(lambda name=name: httpx.get(f"{base}{name}/{number}.m4s").status_code == 200, 30)
            assert httpx.get(f"{base}{name}/{number}.m4s").content == segment

        def only_one_is_left() -> bool:
            found = [key for key in keys(server, f"assets/{asset_id}") if "/index/" in key]
            return len(found) == index.pieces + 1 and not any(key.startswith(index.key) for key in found)

        wait_for(only_one_is_left, 10)


def check_upload(server: Server, client: Client, url: str, asset_id: str) -> None:
    """No acknowledged byte was lost, and one job looks at what came."""
    assert client.wrong == []
    wait_for(lambda: asset(server, asset_id)["state"] in {"processing", "failed"}, 10)
    with server.admin() as http:
        jobs = http.get("/api/v1/jobs", params={"subject": asset_id}).json()["items"]
    kinds = [job["kind"] for job in jobs]
    assert kinds.count("transcoder.ingest") == 1
    assert set(kinds) <= {"transcoder.ingest", "transcoder.growing"}


def children_of(server: int) -> list[str]:
    """Media children of the server of that process id; it tells it to them as their last argument."""
    found = subprocess.run(
        ["pgrep", "-af", "streamgate.media.zygote"], capture_output=True, text=True, check=False
    ).stdout
    return [line for line in found.splitlines() if line.split()[-1] == str(server)]


def check_film(server: Server, source: Path, asset_id: str) -> None:
    url = play(server, asset_id, None).json()["hls_url"]
    count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
    frames = probe(str(source), *count)["streams"][0]["nb_read_frames"]
    for rendition in ("240p", "360p"):
        read = probe(url.replace("master.m3u8", f"{rendition}/playlist.m3u8"), *count)["streams"][0]["nb_read_frames"]
        assert read == frames, rendition
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-i", url, "-map", "0", "-f", "null", "-"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with httpx.Client() as http:
        for number in range(12):
            assert http.get(url.replace("master.m3u8", f"audio-1/{number}.m4s")).status_code == 200


def check_rows(server: Server, asset_id: str) -> None:
    """Every chunk exactly once, every object named by a row, no job left over, the database sound."""
    with sqlite3.connect(server.data_dir / "streamgate.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        chosen = "SELECT prefix FROM transcoder_chunks WHERE error_code IS NULL AND rendition != 'storyboard'"
        prefixes = [row[0] for row in database.execute(chosen)]
        # The film is ready before the last sheets of its storyboard need be.
        waiting = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND kind != 'transcoder.storyboard'"
        live = database.execute(waiting).fetchone()[0]
        counts = "SELECT sum(failures), sum(crashes) FROM jobs WHERE subject = ?"
        failures = database.execute(counts, (asset_id,)).fetchone()
    assert len(prefixes) == len(set(prefixes)) == 3 * 12
    assert live == 0
    assert failures == (0, 0)
    objects = server.data_dir / "objects"
    for prefix in prefixes:
        assert list((objects / prefix).glob("*.m4s")), prefix
    folders = {
        f"{path.relative_to(objects)}/"
        for path in (objects / "assets" / asset_id).glob("pln_*/*/*")
        if path.is_dir() and path.parent.name != "storyboard"
    }
    leftover = [folder for folder in folders - set(prefixes) if list((objects / folder).iterdir())]
    # A kill between storing and committing may leave objects that no row names; they cost room and are never served.
    assert len(leftover) <= KILLS
