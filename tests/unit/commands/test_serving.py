"""The command line: exit codes, one sentence for wrong use, and the monitor as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


def streamgate(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environ}
    command = [sys.executable, "-m", "streamgate", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["serve", "--mode", "microservice"], {}, "needs --service"),
        (
            ["serve", "--mode", "microservice", "--service", "nothing"],
            {},
            "There is no service 'nothing'; installed are: api-gateway, ",
        ),
        (["serve", "--mode", "monolith", "--service", "auth"], {}, "--service goes with --mode microservice"),
        (["serve", "--config", "nowhere.yaml"], {}, "does not exist"),
        (["serve"], {"STREAMGATE_UPLOAD__NOTHING": "1"}, "There is no setting upload.nothing."),
        (["serve"], {"STREAMGATE_NOTHING": "1"}, "names no setting"),
        (["serve"], {"DATABASE_URL": "mysql://x/y"}, "database.url"),
        (["serve", "--data-dir", "file"], {}, "/file cannot be used: file exists."),
        (["serve", "--data-dir", "/proc/nothing"], {}, "cannot be used: "),
        (["migrate", "--data-dir", "file/below"], {}, "cannot be used: "),
        (["jobs", "list"], {}, "No API key"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    (tmp_path / "file").touch()
    done = streamgate(*arguments, cwd=tmp_path, **environ)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid"])
def test_a_port_that_cannot_be_had_is_one_sentence_and_exit_code_2(tmp_path: Path, host: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = streamgate("serve", "--host", host, "--port", str(port), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"streamgate: Port {port} on {host} cannot be listened on: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr


@pytest.mark.parametrize("server", ["films", "localhost:8080", "ftp://films.example", "http://", "http://x:port"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(tmp_path: Path, server: str) -> None:
    film = tmp_path / "film.mp4"
    film.touch()
    for command in (["upload", str(film)], ["jobs", "list"]):
        done = streamgate(*command, "--api-key", "x", "--server", server, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "is no address such as http://127.0.0.1:8080." in done.stderr


def test_an_upload_to_nobody_does_not_wait_long(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    address = f"http://127.0.0.1:{free_port()}"
    done = streamgate("upload", str(film), "--api-key", "x", "--server", address, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"{address} does not answer (ClientConnectorError); is the server running? (unavailable)" in done.stderr


def test_a_server_that_is_not_there_is_exit_code_1(tmp_path: Path) -> None:
    done = streamgate("jobs", "list", "--api-key", "x", "--server", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is the server running?" in done.stderr


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["migrate"], ["upload"], ["plugins"], ["jobs", "retry"], ["keys", "create"]]
)
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    done = streamgate(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_the_monitor_runs_alone_and_stops_when_told(tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "streamgate",
        "serve",
        "--mode",
        "microservice",
        "--service",
        "monitor",
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            health = wait_for(f"http://127.0.0.1:{port}/health")
            assert (health["status"], health["service"]) == ("ok", "monitor")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/system/status", timeout=5)
            assert refused.value.code == 401
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    assert not (tmp_path / "data").exists()


def wait_for(url: str) -> dict[str, str]:
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                body: dict[str, str] = json.load(answer)
                return body
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
