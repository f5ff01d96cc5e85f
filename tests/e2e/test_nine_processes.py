"""Nine processes on PostgreSQL, Redis, NATS and an object store are the same product as one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest

from streamgate.ports.discovery import GRPC_OFFSET
from tests.e2e.test_on_postgresql import check, streamgate
from tests.support.distributed import distributed
from tests.support.nine import SHARED, Nine
from tests.support.postgres import Postgres
from tests.support.product import problem
from tests.support.server import free_port, wait_for
from tests.support.slim import slim
from tests.support.topology import Topology

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

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


@pytest.mark.apart
def test_calls_go_through_the_gateway_to_those_that_they_are_open_to(services: Nine) -> None:
    places = {
        name: f"127.0.0.1:{server.port + GRPC_OFFSET}"
        for name, server in services.servers.items()
        if name in {"api-gateway", "worker"}
    }
    admin = ("authorization", f"Bearer {services.gateway.admin_key}")
    with ExitStack() as stack:
        channels = {n: stack.enter_context(grpc.insecure_channel(place)) for n, place in places.items()}
        for name, path, metadata, expected in (
            ("api-gateway", "worker.v1.Work/List", [admin], "OK"),
            ("worker", "worker.v1.Work/List", [admin], "OK"),
            ("api-gateway", "worker.v1.Work/List", [], "UNAUTHENTICATED"),
            ("worker", "worker.v1.Work/List", [], "UNAUTHENTICATED"),
            ("api-gateway", "auth.v1.Access/ResolveKey", [admin], "UNIMPLEMENTED"),
        ):
            call = channels[name].unary_unary(f"/streamgate.{path}").future(b"", metadata=metadata, timeout=20)
            assert call.code().name == expected, (name, path, call.details())


@pytest.mark.apart
def test_a_trace_is_in_the_logs_of_those_that_worked_for_it(services: Nine) -> None:
    with services.gateway.admin() as http:
        http.get("/api/v1/system/status", headers={"traceparent": TRACE}).raise_for_status()
    for name in ("api-gateway", "monitor"):
        wait_for(lambda server=services.servers[name]: TRACE in server.log(), 10)  # type: ignore[misc]


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
