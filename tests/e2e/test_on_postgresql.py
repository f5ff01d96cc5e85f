"""One process on PostgreSQL and NATS: refused until it is migrated, then the same product."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.films import film, frame_count
from tests.support.nats import nats_server
from tests.support.postgres import Postgres
from tests.support.product import play, probe, problem, upload, wait_final
from tests.support.server import Server, free_port, serving, wait_for
from tests.support.wallet import Wallet

# One process on a part of what nine use.
pytestmark = [pytest.mark.timeout(120), pytest.mark.embedded]


def streamgate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGATE_")}
    command = [sys.executable, "-m", "streamgate", *arguments]
    return subprocess.run(
        command, env=environ | {"DATABASE_URL": url}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_product_on_postgresql_and_nats(postgresql: tuple[Postgres, str], tmp_path: Path) -> None:
    database, _ = postgresql
    name = database.create()
    url = database.url(name)
    data = ("--data-dir", str(tmp_path / "data"))
    try:
        early = streamgate(url, "serve", *data, "--port", str(free_port()))
        assert (early.returncode, "streamgate migrate" in early.stderr) == (2, True), early.stderr
        done = streamgate(url, "migrate", *data)
        assert (done.returncode, "brought up to date" in done.stdout + done.stderr) == (0, True), done.stderr
        settings = {
            "database.url": url,
            "auth.creators": ["*"],
            "transcoder.rungs": [240],
            "transcoder.preset": "ultrafast",
            "transcoder.passthrough": False,
        }
        with nats_server(tmp_path) as bus:
            with serving(tmp_path / "data", settings | {"bus.backend": "nats", "bus.url": bus.url}) as server:
                check(server, tmp_path)
    finally:
        database.drop(name)


def check(server: Server, folder: Path) -> None:
    creator, viewer = Wallet(), Wallet()
    token = creator.sign_in(server.url)
    source = film(folder, seconds=9)
    with server.client(token) as http:
        document = {"v": 1, "expr": {"allowlist": {"addresses": [viewer.address]}}}
        policy = http.post("/api/v1/policies", json={"name": "One", "document": document}).json()["id"]
    asset_id = upload(server, source, token, title="On PostgreSQL", visibility="gated", policy_id=policy)
    assert wait_final(server, asset_id)["state"] == "ready"
    assert problem(play(server, asset_id, Wallet().sign_in(server.url))) == (403, "not_entitled")
    url = play(server, asset_id, viewer.sign_in(server.url)).json()["hls_url"]
    count = ("-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames")
    assert int(probe(url, *count)["streams"][0]["nb_read_frames"]) == frame_count(source)
    with server.client(token) as http:
        page = http.get("/api/v1/jobs", params={"limit": 1}).json()
        assert page["items"][0]["state"] == "done"
        assert page["next_cursor"]
        assert http.get("/api/v1/assets", params={"search": "postgresql"}).json()["items"][0]["id"] == asset_id
        assert http.delete(f"/api/v1/assets/{asset_id}").status_code == 204
    wait_for(lambda: httpx.get(url).status_code == 403, 10)


def test_a_database_that_is_away_is_said_in_one_sentence(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://nobody:secret-word@127.0.0.1:{free_port()}/nothing"
    done = streamgate(url, "serve", "--data-dir", str(tmp_path / "data"), "--port", str(free_port()))
    assert done.returncode == 2
    assert "secret-word" not in done.stderr
    assert "database" in done.stderr.lower()
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
