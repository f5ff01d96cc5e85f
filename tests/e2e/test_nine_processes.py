"""Nine processes on PostgreSQL, Redis, NATS and an object store are the same product as one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_on_postgresql import check, streamgate
from tests.support.distributed import distributed
from tests.support.nine import SHARED, Nine
from tests.support.postgres import Postgres
from tests.support.product import problem
from tests.support.server import free_port
from tests.support.slim import slim
from tests.support.topology import Topology

pytestmark = pytest.mark.timeout(170)


@pytest.fixture(scope="module")
def services(
    topology: Topology, postgresql: tuple[Postgres, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nine]:
    """The nine that all tests share, or nine of its own."""
    if topology.apart is not None:
        yield topology.apart
        return
    settings = {"auth.creators": ["*"], "transcoder.rungs": [240], "transcoder.passthrough": False}
    with distributed(postgresql[0], tmp_path_factory.mktemp("nine"), settings) as started:
        yield started


@pytest.mark.apart
def test_the_product_in_nine_processes(services: Nine, tmp_path: Path) -> None:
    check(services.gateway, tmp_path)
    for server in services.servers.values():
        direct = httpx.get(f"{server.url}/api/v1/system/status")
        assert direct.status_code in {401, 404}, direct.text
    assert problem(httpx.get(f"{services.servers['worker'].url}/api/v1/jobs")) == (401, "unauthenticated")


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("service", "absent"), [("auth", "av"), ("auth", "numpy"), ("transcoder", "eth_keys"), ("transcoder", "coincurve")]
)
def test_a_service_is_installed_without_what_only_others_need(tmp_path: Path, service: str, absent: str) -> None:
    python = slim(tmp_path / "env", service, *SHARED)
    done = subprocess.run(
        [str(python), "-c", f"import streamgate; import {absent}"], capture_output=True, text=True, check=False
    )
    assert f"No module named '{absent}'" in done.stderr


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("service", "lacks"),
    [("auth", "auth.signing_keys_file"), ("streaming", "database.url"), ("upload", "storage.backend: s3")],
)
def test_what_a_service_lacks_is_said(tmp_path: Path, service: str, lacks: str) -> None:
    arguments = ("serve", "--mode", "microservice", "--service", service, "--data-dir", str(tmp_path))
    done = streamgate("sqlite+aiosqlite://", *arguments, "--port", str(free_port()))
    assert (done.returncode, "A service that runs apart needs" in done.stderr) == (2, True), done.stderr
    assert lacks in done.stderr
