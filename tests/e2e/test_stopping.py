"""SIGTERM with an upload, a playback and an encode in flight: a prompt end, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.films import film
from tests.support.product import TUS, asset, play, upload, wait_final, wait_playable
from tests.support.server import Server, wait_for

# One process stops with everything that it has in flight.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.embedded]
SETTINGS = {
    "transcoder.rungs": [360, 720],
    "transcoder.preset": "slow",
    "transcoder.passthrough": False,
    "shutdown_timeout": 20,
    "transcoder.grace_s": 2,
}


def trickle(pieces: int, stop: threading.Event) -> Iterator[bytes]:
    for _ in range(pieces):
        if stop.is_set():
            return
        yield os.urandom(64 << 10)
        time.sleep(0.05)


def test_a_stop_is_prompt_and_loses_nothing(tmp_path: Path) -> None:
    source = film(tmp_path, seconds=60, width=1280, height=720)
    server = Server(tmp_path / "data", SETTINGS)
    server.start()
    try:
        asset_id = upload(server, source, visibility="public")
        wait_playable(server, asset_id)
        url = play(server, asset_id, None).json()["hls_url"]
        answers: dict[str, Any] = {}
        stop = threading.Event()

        def uploading() -> None:
            with server.admin() as http:
                made = http.post("/api/v1/uploads", headers=TUS | {"upload-length": str(64 << 20)})
                answers["upload"] = made.headers["location"]
                headers = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
                try:
                    answers["patch"] = http.patch(
                        made.headers["location"], headers=headers, content=trickle(1000, stop)
                    )
                except httpx.HTTPError as error:
                    answers["patch"] = error

        def playing() -> None:
            with httpx.Client(timeout=60) as http:
                try:
                    answers["segment"] = http.get(url.replace("master.m3u8", "720p/14.m4s")).status_code
                except httpx.HTTPError as error:
                    answers["segment"] = error

        threads = [threading.Thread(target=work, daemon=True) for work in (uploading, playing)]
        for thread in threads:
            thread.start()
        wait_for(lambda: "upload" in answers, 10)
        time.sleep(1.0)
        assert server.process is not None
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert asset_is_refused_or_gone(server)
        code = server.process.wait(25)
        took = time.monotonic() - began
        stop.set()
        for thread in threads:
            thread.join(20)
        assert code == 0, server.log()[-3000:]
        assert took < SETTINGS["shutdown_timeout"]  # type: ignore[operator]
        assert answers["segment"] in {200, 503} or isinstance(answers["segment"], httpx.HTTPError)
        server.start()
        with server.admin() as http:
            offset = int(http.head(answers["upload"], headers=TUS).headers["upload-offset"])
            assert offset > 0
            jobs = http.get("/api/v1/jobs", params={"subject": asset_id, "limit": 100}).json()["items"]
        assert sum(job["failures"] + job["crashes"] for job in jobs) == 0
        assert asset(server, asset_id)["playable"]
        with server.admin() as http:
            assert http.post(f"/api/v1/assets/{asset_id}/cancel").status_code == 202
        assert wait_final(server, asset_id)["state"] == "canceled"
        wait_for(lambda: encoders(server) == 0, 5)
        with httpx.Client() as http:
            assert http.get(url.replace("master.m3u8", "360p/0.m4s")).status_code == 200
        with server.admin() as http:
            assert http.post(f"/api/v1/assets/{asset_id}/retry").status_code == 202
        assert asset(server, asset_id)["state"] == "processing"
        wait_for(lambda: encoders(server) > 0, 10)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def asset_is_refused_or_gone(server: Server) -> bool:
    """A server that stops says that it is not ready, or does not answer any more."""
    try:
        return httpx.get(f"{server.url}/health/ready", timeout=2).status_code == 503
    except httpx.HTTPError:
        return True


def encoders(server: Server) -> int:
    """Media children at work: processes below the server's fork server."""
    import psutil

    assert server.process is not None
    tree = psutil.Process(server.process.pid)
    return sum(len(child.children()) for child in tree.children())


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"shutdown_timeout": 60})
    server.start()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) in {0, 1}


def test_a_second_server_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.start()
    try:
        other = Server(tmp_path / "data")
        other.start(wait=False)
        assert other.process is not None
        assert other.process.wait(20) == 2
        assert "Another StreamGate uses the data directory" in other.log()
    finally:
        assert server.stop() == 0
