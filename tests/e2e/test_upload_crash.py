"""The server is killed twenty times while an upload runs: no acknowledged byte is lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.product import TUS
from tests.support.server import Server, wait_for

KILLS = 20
SEED = 4361
PIECE = 64 << 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Client:
    """Uploads as long as it is not done: asks for the offset, sends from there, in small pieces and in several requests."""

    def __init__(self, server: Server, url: str, data: bytes, dice: random.Random) -> None:
        self._server, self._url, self._data, self._dice = server, url, data, dice
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
            time.sleep(0.004)


def test_no_acknowledged_byte_is_lost(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    data = random.Random(1).randbytes(40_000_000)
    server = Server(tmp_path / "data")
    server.start()
    try:
        with server.admin() as http:
            made = http.post("/api/v1/uploads", headers=TUS | {"upload-length": str(len(data))})
        url, asset_id = made.headers["location"], made.headers["streamgate-asset"]
        client = Client(server, url, data, dice)
        sending = threading.Thread(target=client.run, daemon=True)
        sending.start()
        kills = 0
        while kills < KILLS and not client.done.is_set():
            time.sleep(dice.uniform(0.02, 0.25))
            server.kill()
            kills += 1
            server.start()
        assert client.done.wait(120), client.offsets[-5:]
        sending.join(10)
        assert kills == KILLS, "the upload was done before the last kill"
        assert client.wrong == []
        stored = (server.data_dir / "objects" / "uploads" / url.rsplit("/", 1)[1] / "0").read_bytes()
        assert len(stored) == len(data)
        assert stored == data
        with server.admin() as http:
            states = {"processing", "failed"}
            wait_for(lambda: http.get(f"/api/v1/assets/{asset_id}").json()["state"] in states, 20)
            jobs = http.get("/api/v1/jobs", params={"subject": asset_id}).json()["items"]
        kinds = [job["kind"] for job in jobs]
        assert kinds.count("transcoder.ingest") == 1
        assert set(kinds) <= {"transcoder.ingest", "transcoder.growing"}
        assert server.stop() == 0
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    assert os.listdir(server.data_dir / "objects" / "uploads") == [url.rsplit("/", 1)[1]]
