"""The command line against a running server, as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.films import film
from tests.support.product import asset, play, problem
from tests.support.server import Server, free_port, wait_for
from tests.support.wallet import Wallet


def streamgate(*arguments: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGATE_")}
    if state is not None:
        environ["XDG_STATE_HOME"] = str(state)
    command = [sys.executable, "-m", "streamgate", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


def at(server: Server) -> list[str]:
    return ["--server", server.url, "--data-dir", str(server.data_dir)]


def test_a_film_is_uploaded_gated_and_ready_to_play(shared: Server, tmp_path: Path) -> None:
    wallet = Wallet()
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"v": 1, "expr": {"allowlist": {"addresses": [wallet.address]}}}))
    source = film(tmp_path, seconds=5, width=320, height=240)
    done = streamgate(
        "upload", str(source), "--title", "From a shell", "--policy", str(policy), *at(shared), state=tmp_path
    )
    assert done.returncode == 0, done.stderr
    asset_id, url = done.stdout.split()
    found = asset(shared, asset_id)
    assert (found["title"], found["visibility"], found["playable"]) == ("From a shell", "gated", True)
    assert httpx.get(url).status_code == 200
    assert "100%" in done.stderr or source.name in done.stderr
    assert play(shared, asset_id, wallet.sign_in(shared.url)).status_code == 201
    assert problem(play(shared, asset_id, Wallet().sign_in(shared.url))) == (403, "not_entitled")
    assert not list((tmp_path / "streamgate" / "uploads").glob("*.json"))


def test_a_file_that_is_no_film_fails_with_its_reason(shared: Server, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("no film\n" * 100)
    done = streamgate("upload", str(bad), *at(shared), state=tmp_path)
    assert done.returncode == 1
    assert "unsupported_container" in done.stderr
    assert done.stdout == ""


def test_a_policy_that_cannot_be_is_explained_by_its_place(shared: Server, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"v": 1, "expr": {"guesslist": {}}}))
    bad = tmp_path / "notes.mp4"
    bad.write_text("no film\n")
    done = streamgate("upload", str(bad), "--policy", str(policy), *at(shared), state=tmp_path)
    assert done.returncode == 1
    assert "/document/expr/guesslist: is no rule that this server knows" in done.stderr


def test_jobs_are_listed_shown_and_run_again(shared: Server, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("no film\n" * 100)
    streamgate("upload", str(bad), *at(shared), state=tmp_path)
    listed = streamgate("jobs", "list", "--state", "failed", *at(shared))
    assert listed.returncode == 0, listed.stderr
    job_id = listed.stdout.splitlines()[1].split()[0]
    shown = streamgate("jobs", "show", job_id, *at(shared))
    assert "unsupported_container" in shown.stdout
    assert streamgate("jobs", "retry", job_id, *at(shared)).returncode == 0
    wait_for(lambda: "failed" in streamgate("jobs", "show", job_id, *at(shared)).stdout, 20, 0.3)
    canceled = streamgate("jobs", "cancel", job_id, *at(shared))
    assert (canceled.returncode, "conflict" in canceled.stderr) == (1, True)
    assert streamgate("jobs", "show", "job_nothing", *at(shared)).returncode == 1


def test_keys_are_made_listed_and_ended(shared: Server) -> None:
    made = streamgate("keys", "create", "--name", "for a test", "--role", "viewer", *at(shared))
    key = made.stdout.strip()
    assert key.startswith("sg_key_")
    with shared.client(key) as http:
        assert http.get("/api/v1/auth/session").json()["role"] == "viewer"
    listed = streamgate("keys", "list", *at(shared)).stdout
    (line,) = [line for line in listed.splitlines() if "for a test" in line]
    assert key not in listed
    assert streamgate("keys", "revoke", line.split()[0], *at(shared)).returncode == 0

    def refused() -> bool:
        with shared.client(key) as http:
            return http.get("/api/v1/auth/session").status_code == 401

    wait_for(refused, 10)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["jobs", "list"], 2),
        (["upload", "/nowhere/film.mp4"], 2),
        (["keys", "create"], 2),
        (["nonsense"], 2),
        (["jobs", "list", "--api-key", "sg_key_wrong"], 1),
    ],
)
def test_wrong_use_has_its_exit_code(shared: Server, tmp_path: Path, arguments: list[str], code: int) -> None:
    more = ["--server", shared.url, "--data-dir", str(tmp_path)] if arguments[0] in {"jobs", "keys", "upload"} else []
    done = streamgate(*arguments, *more)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    done = streamgate("jobs", "list", "--server", f"http://127.0.0.1:{free_port()}", "--api-key", "sg_key_x")
    assert done.returncode == 1
    assert "does not answer" in done.stderr


@pytest.mark.embedded
def test_the_monitor_runs_alone(tmp_path: Path, shared: Server) -> None:
    port = free_port()
    environ = {"STREAMGATE_DISCOVERY__SERVICES": json.dumps({"monolith": [f"127.0.0.1:{shared.port}"]})}
    command = [sys.executable, "-m", "streamgate", "serve", "--mode", "microservice", "--service", "monitor"]
    command += ["--port", str(port), "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=1).status_code == 200
            except httpx.HTTPError:
                return False

        wait_for(ready, 20)
        health = httpx.get(f"http://127.0.0.1:{port}/health").json()
        assert (health["service"], health["status"]) == ("monitor", "ok")
        # Nobody can be verified here, so nobody is let in.
        assert problem(httpx.get(f"http://127.0.0.1:{port}/api/v1/system/status")) == (401, "unauthenticated")
        assert not (tmp_path / "data" / "streamgate.db").exists()
    finally:
        process.terminate()
        assert process.wait(20) == 0
