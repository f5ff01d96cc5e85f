"""Every route, asked by nobody, a viewer, another creator, and the administrator: closed unless it says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamgate.contracts.declare import declaration
from streamgate.domain.identity import Prefix, Role, new_id
from streamgate.kernel import discover
from streamgate.plugins.api_gateway.documents import snapshot
from tests.support.product import problem
from tests.support.server import Server
from tests.support.topology import Topology
from tests.support.wallet import Wallet

DOCUMENT: dict[str, Any] = json.loads(snapshot())
ROUTES = [
    (method.upper(), path, operation)
    for path, item in sorted(DOCUMENT["paths"].items())
    for method, operation in item.items()
    if isinstance(operation, dict) and "responses" in operation
]
PLACEHOLDERS = {
    "asset_id": new_id(Prefix.ASSET),
    "upload_id": new_id(Prefix.UPLOAD),
    "job_id": new_id(Prefix.JOB),
    "policy_id": new_id(Prefix.POLICY),
    "session_id": new_id(Prefix.PLAYBACK),
    "key_id": new_id(Prefix.KEY),
}


@pytest.fixture(scope="module")
def guarded(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server where only one wallet may upload."""
    creator = Wallet()
    with topology.serving(tmp_path_factory.mktemp("guarded") / "data", {"auth.creators": [creator.address]}) as server:
        yield server, creator.sign_in(server.url), Wallet().sign_in(server.url)


def ask(server: Server, token: str | None, method: str, path: str) -> httpx.Response:
    filled = path
    for name, value in PLACEHOLDERS.items():
        filled = filled.replace(f"{{{name}}}", value)
    with server.client(token) as http:
        return http.request(method, filled, headers={"tus-resumable": "1.0.0"})


def test_the_snapshot_knows_every_route(guarded: tuple[Server, str, str]) -> None:
    server, *_ = guarded
    assert httpx.get(f"{server.url}/openapi.json").json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1")
    declared = {route for plugin in discover() for kind in plugin.provides for route in declaration(kind).routes}
    assert declared - {"/p/{path}"} <= set(DOCUMENT["paths"])
    assert all(operation.get("summary") and operation.get("operationId") for _, _, operation in ROUTES)
    assert len({operation["operationId"] for _, _, operation in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(("method", "path", "operation"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_a_route_is_closed_to_those_below_its_role(
    guarded: tuple[Server, str, str], method: str, path: str, operation: dict[str, Any]
) -> None:
    server, creator, viewer = guarded
    least = Role[operation["x-least-role"].upper()]
    for role, token in ((Role.ANONYMOUS, None), (Role.VIEWER, viewer), (Role.CREATOR, creator)):
        answer = ask(server, token, method, path)
        if role < least:
            expected = (401, "unauthenticated") if role is Role.ANONYMOUS else (403, "forbidden")
            if method == "HEAD":
                assert answer.status_code == expected[0]
            else:
                assert problem(answer) == expected
        else:
            assert answer.status_code not in {401, 403} or path.endswith("/auth/session"), answer.text
        assert answer.status_code < 500, answer.text
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", (404, "not_found")),
        ("GET", "/api/v1/nothing", (404, "not_found")),
        ("GET", "/api/v2/assets", (404, "not_found")),
        ("PUT", "/api/v1/assets", (405, "method_not_allowed")),
        ("TRACE", "/api/v1/assets", (405, "method_not_allowed")),
        ("FOO", "/api/v1/assets", (405, "method_not_allowed")),
        ("GET", "/p/", (404, "not_found")),
        ("GET", "/p/x/y/z", (404, "not_found")),
        ("GET", "/api/v1/assets?limit=0", (422, "validation_failed")),
        ("GET", "/api/v1/assets?limit=many", (422, "validation_failed")),
        ("GET", "/api/v1/assets?cursor=x", (422, "validation_failed")),
        ("POST", "/health", (405, "method_not_allowed")),
    ],
)
def test_what_is_not_there_is_a_problem_document(
    guarded: tuple[Server, str, str], method: str, path: str, expected: tuple[int, str]
) -> None:
    server, *_ = guarded
    assert problem(httpx.request(method, server.url + path)) == expected


BODIES: dict[str, tuple[bytes, str, tuple[int, str]]] = {
    "no JSON": (b"{", "application/json", (422, "validation_failed")),
    "a list": (b"[]", "application/json", (422, "validation_failed")),
    "an unknown member": (b'{"name": "x", "document": {}, "x": 1}', "application/json", (422, "validation_failed")),
    "deep nesting": (b'{"name": "x", "document": ' + b'{"a":' * 50_000, "application/json", (422, "validation_failed")),
    "too much": (b'{"name": "' + b"x" * (2 << 20) + b'"}', "application/json", (413, "payload_too_large")),
    "no UTF-8": (b'{"name": "\xff"}', "application/json", (422, "validation_failed")),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_as_it_must_be(guarded: tuple[Server, str, str], name: str) -> None:
    server, *_ = guarded
    body, media_type, expected = BODIES[name]
    with server.admin() as http:
        answer = http.post("/api/v1/policies", content=body, headers={"content-type": media_type})
    assert problem(answer) == expected


def test_health_tells_details_to_administrators_only(guarded: tuple[Server, str, str]) -> None:
    server, creator, _ = guarded
    for process in server.services.values() or [server]:
        for token in (None, creator):
            with process.client(token) as http:
                checks = http.get("/health").json()["checks"]
            assert {check["detail"] for check in checks.values()} == {""}
        with process.client(server.admin_key) as http:
            if process is server.of("transcoder"):
                assert http.get("/health").json()["checks"]["transcoder.queue"]["detail"] != ""
            assert b"sg_http_requests_total" in http.get("/metrics").content
    with server.admin() as http:
        services = http.get("/api/v1/system/status").json()["services"]
    assert {service["service"] for service in services} == (server.services.keys() or {"monolith"})


def test_a_page_of_another_origin_may_not_read(guarded: tuple[Server, str, str]) -> None:
    server, *_ = guarded
    for origin, allowed in ((server.url, True), ("https://evil.example", False), ("null", False)):
        answer = httpx.get(f"{server.url}/api/v1/assets", headers={"origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is allowed
        assert "access-control-allow-credentials" not in answer.headers
        asked = {"origin": origin, "access-control-request-method": "POST"}
        preflight = httpx.options(f"{server.url}/api/v1/uploads", headers=asked)
        assert ("access-control-allow-origin" in preflight.headers) is allowed


def test_wallets_that_the_settings_name_have_their_roles(topology: Topology, tmp_path: Path) -> None:
    chief, maker, guest = Wallet(), Wallet(), Wallet()
    roles = {"auth.admins": [f"eip155:1:{chief.address}"], "auth.creators": [maker.address.lower()]}
    with topology.serving(tmp_path / "data", roles) as server:
        for wallet, role, status in ((chief, "admin", 200), (maker, "creator", 403), (guest, "viewer", 403)):
            with server.client(wallet.sign_in(server.url)) as http:
                assert http.get("/api/v1/auth/session").json()["role"] == role
                assert http.get("/api/v1/system/status").status_code == status
