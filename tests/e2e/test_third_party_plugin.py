"""The plugin of the how-to, installed as anybody would, found and served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest

from streamgate.adapters.bus_nats import NatsBus
from streamgate.contracts.upload import UploadCompleted
from streamgate.ports.bus import Message
from streamgate.ports.discovery import GRPC_OFFSET
from tests.support.front import key_files
from tests.support.nats import nats_server
from tests.support.product import upload_bytes
from tests.support.server import Server, lasting_port, wait_for

# A plugin of others is loaded into a process, whichever it is.
pytestmark = pytest.mark.embedded

HOW_TO = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to" / "add-a-plugin.md"
FILE = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed packages with the plugin of the how-to in it."""
    project, target = tmp_path_factory.mktemp("streamgate-hello"), tmp_path_factory.mktemp("packages")
    files = FILE.findall(HOW_TO.read_text())
    assert [name for name, _ in files] == ["pyproject.toml", "streamgate_hello/__init__.py"]
    for name, text in files:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
    ]
    subprocess.run([*command, str(project)], check=True)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(target)
    yield target
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def test_it_is_listed(installed: Path) -> None:
    listed = subprocess.run([sys.executable, "-m", "streamgate", "plugins"], capture_output=True, text=True, check=True)
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("hello ")]
    assert "streamgate-hello 1.0" in line


def test_it_is_served_with_its_settings_and_hears_facts(installed: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"hello.greeting": "Moin"})
    server.start()
    try:
        url = f"{server.url}/api/v1/hello"
        assert httpx.get(url).json() == {"greeting": "Moin, world", "uploaded": 0}
        upload_bytes(server, b"any bytes")
        wait_for(lambda: httpx.get(url).json()["uploaded"] == 1, 10)
    finally:
        assert server.stop() == 0


def test_a_setting_that_it_does_not_know_stops_the_start(installed: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"hello.greetings": "Moin"})
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(20) == 2
    assert "There is no setting hello.greetings." in server.log()


async def test_it_runs_apart_and_is_reached_through_the_gateway(installed: Path, tmp_path: Path) -> None:
    ports = {"hello": lasting_port(GRPC_OFFSET), "api-gateway": lasting_port(GRPC_OFFSET)}
    told = {
        "bus.backend": "nats",
        "hello.greeting": "Moin",
        "discovery.services": {name: [f"127.0.0.1:{port}"] for name, port in ports.items()},
    }
    with nats_server(tmp_path) as bus, ExitStack() as stack:
        servers = {}
        for name, port in ports.items():
            own = key_files(tmp_path, name) if name == "api-gateway" else {}
            server = Server(tmp_path / name, {**told, "bus.url": bus.url, **own}, port=port, service=name)
            server.start(wait=False)
            stack.callback(server.kill)
            servers[name] = server
        for server in servers.values():
            server.wait_ready(time.monotonic())
        url = f"{servers['api-gateway'].url}/api/v1/hello"
        assert httpx.get(url).json() == {"greeting": "Moin, world", "uploaded": 0}
        fact = UploadCompleted(asset_id="ast_1", upload_id="upl_1", owner="o", size=1)
        async with NatsBus(bus.url) as sending:
            await sending.publish(Message("upload.completed", msgspec.msgpack.encode(fact), id="evt_1"))
        wait_for(lambda: httpx.get(url).json()["uploaded"] == 1, 10)
        servers["hello"].kill()
        away = httpx.get(url)
        assert (away.status_code, away.json()["code"]) == (503, "unavailable")
        assert servers["api-gateway"].stop() == 0
