"""The services in one process and the gateway before them in front of another door: the API as callers see it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel

from streamgate.app import Running
from streamgate.contracts.auth import Access
from streamgate.contracts.declare import declarations
from streamgate.domain.identity import SCOPES, Prefix, Role, new_id
from streamgate.kernel import Context, DirectBinding, Parts, Plugin, discover
from streamgate.plugins.api_gateway.documents import snapshot
from streamgate.settings import load
from tests.support.asgi import listening
from tests.support.wallet import Wallet

BEHIND = {"upload", "transcoder", "streaming", "metadata", "cache", "auth", "worker", "monitor"}
CREATOR_ORIGIN = "http://player.example"
TUS = {"tus-resumable": "1.0.0"}


class NoSettings(BaseModel):
    """Nothing to tell."""


def linked(access: object) -> Plugin[NoSettings]:
    """A plugin that gives the gateway the auth service of the other process."""

    @asynccontextmanager
    async def setup(context: Context[NoSettings]) -> AsyncGenerator[Parts, None]:
        yield Parts(provides={Access: access})

    return Plugin(name="link", settings=NoSettings, setup=setup, provides=(Access,))


@dataclass(frozen=True)
class Topology:
    """Where the services answer, where the gateway does, the administrator's key, and who may upload."""

    services: str
    gateway: str
    key: str
    creator: Wallet


@pytest.fixture
async def topology(tmp_path: Path) -> AsyncIterator[Topology]:
    """The services in one process, and the gateway before them in front of another door."""
    behind, creator = discover(BEHIND), Wallet()
    told = {
        "STREAMGATE_TRUSTED_PROXIES": '["127.0.0.1/32"]',
        "STREAMGATE_PUBLIC_URL": "http://films.example",
        "STREAMGATE_AUTH__CREATORS": json.dumps([creator.address]),
    }
    services = Running(load(behind, service="monolith", environ=told, flags={"data_dir": tmp_path / "a"}), "monolith")
    async with services.started(behind, DirectBinding()), listening(services.app) as port:
        door = [*discover({"api-gateway"}), linked(services.assembled.bound[Access])]
        places = {found.service: (f"127.0.0.1:{port}",) for found in declarations()}
        settings = load(
            door,
            service="api-gateway",
            environ={"STREAMGATE_PUBLIC_URL": "http://films.example"},
            flags={
                "data_dir": tmp_path / "b",
                "discovery": {"services": places},
                "allowed_origins": (CREATOR_ORIGIN,),
                "api_gateway": {"sign_in_burst": 10_000},
            },
        )
        gateway = Running(settings, "api-gateway")
        async with gateway.started(door, DirectBinding()), listening(gateway.app) as ear:
            key = (tmp_path / "a" / "admin.key").read_text().strip()
            yield Topology(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{ear}", key, creator)


@pytest.fixture
async def client(topology: Topology) -> AsyncIterator[httpx.AsyncClient]:
    """The administrator at the gateway."""
    headers = {"authorization": f"Bearer {topology.key}"}
    async with httpx.AsyncClient(base_url=topology.gateway, headers=headers, timeout=60) as made:
        yield made


async def test_a_film_is_uploaded_and_read_through_the_gateway(client: httpx.AsyncClient) -> None:
    name = base64.b64encode(b"film.mp4").decode()
    headers = TUS | {"upload-length": "10", "upload-metadata": f"filename {name}"}
    made = await client.post("/api/v1/uploads", headers=headers)
    assert made.status_code == 201, made.text
    place = httpx.URL(made.headers["location"]).path
    piece = TUS | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
    assert (await client.patch(place, headers=piece, content=b"1234")).headers["upload-offset"] == "4"
    assert (await client.patch(place, headers=piece, content=b"1234")).status_code == 409
    assert (await client.head(place, headers=TUS)).headers["upload-offset"] == "4"
    film = made.headers["streamgate-asset"]
    listed = await client.get("/api/v1/assets", params={"mine": "true"}, headers={"origin": CREATOR_ORIGIN})
    assert [item["id"] for item in listed.json()["items"]] == [film]
    assert listed.headers["access-control-allow-origin"] == CREATOR_ORIGIN
    assert "ratelimit" in listed.headers
    assert listed.headers.get_list("x-content-type-options") == ["nosniff"]
    nobody = await client.get(f"/api/v1/assets/{film}", headers={"authorization": ""})
    assert nobody.status_code in {401, 404}
    async with client.stream("GET", f"/api/v1/assets/{film}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        first = await anext(events.aiter_text())
        assert film in first


async def test_the_gateway_answers_for_itself(client: httpx.AsyncClient) -> None:
    health = (await client.get("/health")).json()
    assert health["service"] == "api-gateway"
    assert (await client.get("/openapi.json")).json()["openapi"].startswith("3.1")
    assert "<title>" in (await client.get("/docs")).text
    preflight = {"origin": CREATOR_ORIGIN, "access-control-request-method": "PATCH"}
    assert (await client.options("/api/v1/uploads", headers=preflight)).status_code == 204
    assert (await client.get("/api/v1/nothing")).json()["code"] == "not_found"
    assert (await client.get("/api/v1/assets", headers={"authorization": "Bearer nonsense"})).status_code == 401
    segment = await client.get("/p/" + "x" * 43 + "/master.m3u8")
    assert segment.headers["content-type"] == "application/problem+json"
    assert segment.status_code in {401, 403, 404}


OPERATIONS = [
    (method.upper(), path, operation)
    for path, item in sorted(json.loads(snapshot())["paths"].items())
    for method, operation in item.items()
    if isinstance(operation, dict) and "responses" in operation
]
IDS = {"asset_id": "ast", "upload_id": "upl", "job_id": "job", "policy_id": "pol", "session_id": "pbs", "key_id": "key"}


async def test_every_route_is_as_closed_at_its_service_as_through_the_gateway(topology: Topology) -> None:
    async with httpx.AsyncClient(base_url=topology.services) as http:
        viewer = await asyncio.to_thread(Wallet().sign_in, topology.services)
        creator = await asyncio.to_thread(topology.creator.sign_in, topology.services)

        async def narrowed(scopes: list[str]) -> str:
            wanted = {"name": "k", "role": "admin", "scopes": scopes}
            made = await http.post("/api/v1/auth/api-keys", json=wanted, headers=bearer(topology.key))
            assert made.status_code == 201, made.text
            return str(made.json()["key"])

        keys = {scope: (await narrowed([scope]), await narrowed([s for s in SCOPES if s != scope])) for scope in SCOPES}
    people = {"viewer": viewer, "creator": creator, "admin": topology.key, "forged": f"{viewer[:-8]}AAAAAAAA"}
    by_key = {topology.key, *(key for pair in keys.values() for key in pair)}
    wrong: list[str] = []
    async with AsyncExitStack() as stack:
        doors = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
            for url in (topology.services, topology.gateway)
        ]
        for method, path, operation in OPERATIONS:
            filled = path
            for name, prefix in IDS.items():
                filled = filled.replace(f"{{{name}}}", new_id(Prefix(prefix)))
            least, scope = Role[operation["x-least-role"].upper()], operation.get("x-scope")
            asking = people | ({"one scope": keys[scope][0], "all others": keys[scope][1]} if scope else {})
            for who, token in [("nobody", None), *asking.items()]:
                there, here = await asyncio.gather(*(asked(door, method, filled, token) for door in doors))
                role = {"nobody": Role.ANONYMOUS, "viewer": Role.VIEWER, "creator": Role.CREATOR}.get(who, Role.ADMIN)
                if who == "forged" or (who == "nobody" and least > role):
                    right = there == (401, "unauthenticated")
                elif role < least or who == "all others" or (operation["operationId"] == "signOut" and token in by_key):
                    right = there == (403, "forbidden")
                else:
                    right = there[1] not in {"unauthenticated", "forbidden"} and there[0] < 500
                if not right or there != here:
                    wrong.append(f"{method} {path} by {who}: {there}, through the gateway {here}")
    assert wrong == []


async def asked(door: httpx.AsyncClient, method: str, path: str, token: str | None) -> tuple[int, str]:
    """Status and code (one that HEAD cannot say stands for all of its status) of the answer."""
    answer = await door.request(method, path, headers=TUS | bearer(token))
    if method == "HEAD" and answer.is_error:
        return answer.status_code, {401: "unauthenticated", 403: "forbidden"}.get(answer.status_code, "")
    return answer.status_code, answer.json()["code"] if answer.is_error else ""


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}
