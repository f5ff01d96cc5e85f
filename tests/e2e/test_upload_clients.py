"""Real clients of tus, over connections that break in the middle: the stored bytes are the file's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tusclient.client import TusClient

from streamgate.domain.errors import StreamGateError, Unavailable
from streamgate.uploader import Uploader
from tests.support import node
from tests.support.inside import content, rows
from tests.support.proxy import Proxy, proxy
from tests.support.server import Server, free_port, wait_for
from tests.support.topology import Topology

SIZE = 12_000_000


@pytest.fixture(scope="module")
def behind(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Proxy]]:
    """A server whose public address is a proxy's."""
    port = topology.port()
    with proxy(port) as line:
        settings = {"public_url": f"http://127.0.0.1:{line.port}"}
        with topology.serving(tmp_path_factory.mktemp("behind") / "data", settings, port=port) as server:
            yield server, line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(SIZE))
    return path


def source(server: Server, asset_id: str) -> bytes:
    """The bytes of a film's source, part after part, as the rows say."""
    query = "SELECT key, length FROM upload_parts WHERE holder = :film ORDER BY position"
    held = wait_for(lambda: rows(server, query, film=asset_id), 10)
    pieces = [content(server, key) for key, _ in held]
    assert [len(piece) for piece in pieces] == [length for _, length in held]
    return b"".join(pieces)


def newest_asset(server: Server) -> str:
    with server.admin() as http:
        return str(http.get("/api/v1/assets", params={"limit": 1}).json()["items"][0]["id"])


JS: dict[str, dict[str, int]] = {
    "in one piece": {},
    "in chunks": {"chunkSize": 2_500_000},
    "in parallel": {"parallelUploads": 3},
    "in parallel chunks": {"parallelUploads": 4, "chunkSize": 1_000_000},
}


@pytest.mark.parametrize("cuts", [[], [100_000, 1_000_000, 2_500_000, 700_000]], ids=["good line", "bad line"])
@pytest.mark.parametrize("name", JS)
def test_tus_js_client(behind: tuple[Server, Proxy], file: Path, name: str, cuts: list[int]) -> None:
    server, line = behind
    line.cuts, line.broken = list(cuts), 0
    arguments = {
        "endpoint": f"http://127.0.0.1:{line.port}/api/v1/uploads",
        "file": str(file),
        "token": server.admin_key,
    }
    printed = node.run("tus_upload.mjs", arguments | JS[name] | {"metadata": {"filename": name}})
    events = [json.loads(found)["event"] for found in printed.splitlines()]
    assert events[-1] == "success"
    assert line.broken == len(cuts) - len(line.cuts)
    assert line.broken >= min(2, len(cuts))
    assert source(server, newest_asset(server)) == file.read_bytes()


@pytest.mark.parametrize("cuts", [[], [400_000, 1_900_000]], ids=["good line", "bad line"])
def test_tuspy(behind: tuple[Server, Proxy], file: Path, cuts: list[int]) -> None:
    server, line = behind
    line.cuts = list(cuts)
    client = TusClient(
        f"http://127.0.0.1:{line.port}/api/v1/uploads", headers={"Authorization": f"Bearer {server.admin_key}"}
    )
    with file.open("rb") as opened:
        uploader = client.uploader(
            file_stream=opened,
            chunk_size=3_000_000,
            retries=6,
            retry_delay=0.1,
            metadata={"filename": "from tuspy.mp4"},
        )
        uploader.upload()
    assert line.cuts == []
    assert source(server, newest_asset(server)) == file.read_bytes()


async def test_our_own_client(behind: tuple[Server, Proxy], file: Path, tmp_path: Path) -> None:
    server, line = behind
    line.cuts = [300_000, 2_000_000, 5_000_000]
    seen: list[int] = []
    uploader = Uploader(f"http://127.0.0.1:{line.port}", server.admin_key, tmp_path / "state")
    done = await uploader.upload(file, {"title": "Ours"}, lambda stored, _size: seen.append(stored))
    assert line.cuts == []
    assert seen[-1] == SIZE
    assert source(server, done.asset_id) == file.read_bytes()
    assert not list((tmp_path / "state").glob("*"))


async def test_our_own_client_goes_on_in_another_run(behind: tuple[Server, Proxy], file: Path, tmp_path: Path) -> None:
    server, line = behind

    class Interrupted(Exception):
        pass

    def stop(stored: int, _size: int) -> None:
        if stored > 4_000_000:
            raise Interrupted

    uploader = Uploader(f"http://127.0.0.1:{line.port}", server.admin_key, tmp_path / "state")
    with pytest.raises(Interrupted):
        await uploader.upload(file, {"title": "Twice"}, stop)
    time.sleep(0.2)
    first: list[int] = []
    again = Uploader(f"http://127.0.0.1:{line.port}", server.admin_key, tmp_path / "state")
    done = await again.upload(file, {"title": "Twice"}, lambda stored, _size: first.append(stored))
    assert first[0] >= 1_000_000
    assert source(server, done.asset_id) == file.read_bytes()
    file.write_bytes(os.urandom(1000))
    other = await again.upload(file, {"title": "Twice"})
    assert other.asset_id != done.asset_id


async def test_our_own_client_says_what_is_wrong(file: Path, behind: tuple[Server, Proxy], tmp_path: Path) -> None:
    server, _ = behind
    with pytest.raises(StreamGateError) as refused:
        await Uploader(server.url, "sg_key_wrong", tmp_path).upload(file, {})
    assert refused.value.code == "unauthenticated"
    import streamgate.uploader

    before, streamgate.uploader.ATTEMPTS = streamgate.uploader.ATTEMPTS, 2
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await Uploader(f"http://127.0.0.1:{free_port()}", "sg_key_x", tmp_path).upload(file, {})
    finally:
        streamgate.uploader.ATTEMPTS = before
