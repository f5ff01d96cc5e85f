"""The server is killed twenty times while it encodes, and the film is whole in the end."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.support.films import film
from tests.support.product import asset, play, probe, upload, wait_final
from tests.support.server import Server, wait_for

KILLS = 20
SEED = 20261124

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_twenty_kills_cost_time_and_nothing_else(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    source = film(tmp_path, seconds=48, width=1280, height=720)
    server = Server(
        tmp_path / "data",
        {"transcoder.rungs": [360, 720], "transcoder.preset": "medium", "transcoder.passthrough": False},
    )
    server.start()
    asset_id = upload(server, source, visibility="public")
    killed_at, children = [], 0
    try:
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.05, 0.8))
            killed_at.append(asset(server, asset_id)["progress"])
            assert server.process is not None
            killed = server.process.pid
            children += len(children_of(killed))
            server.kill()
            wait_for(lambda pid=killed: not children_of(pid), 5)
            server.start()
        found = wait_final(server, asset_id, 240)
        assert found["state"] == "ready"
        assert found["warnings"] == []
        assert children >= KILLS
        assert killed_at[0] < 1.0, "the film was encoded before the first kill"
        assert killed_at == sorted(killed_at), "what was encoded was lost"
        check_film(server, source, asset_id)
        assert server.stop() == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    check_rows(server, asset_id)


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
    for rendition in ("360p", "720p"):
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
        failures = database.execute("SELECT sum(failures), sum(crashes) FROM jobs").fetchone()
    assert len(prefixes) == len(set(prefixes)) == 3 * 5
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
