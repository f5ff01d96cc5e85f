"""The services in one process and the gateway before them in front of another door: the API as callers see it."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel

from streamgate.app import Running
from streamgate.contracts.auth import Access
from streamgate.contracts.declare import declarations
from streamgate.kernel import Context, DirectBinding, Parts, Plugin, discover
from streamgate.settings import load
from tests.support.asgi import listening

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


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The administrator at the gateway."""
    behind = discover(BEHIND)
    told = {"STREAMGATE_TRUSTED_PROXIES": '["127.0.0.1/32"]', "STREAMGATE_PUBLIC_URL": "http://films.example"}
    services = Running(load(behind, service="monolith", environ=told, flags={"data_dir": tmp_path / "a"}), "monolith")
    async with services.started(behind, DirectBinding()), listening(services.app) as port:
        door = [*discover({"api-gateway"}), linked(services.assembled.bound[Access])]
        places = {found.service: (f"127.0.0.1:{port}",) for found in declarations()}
        settings = load(
            door,
            service="api-gateway",
            environ={"STREAMGATE_PUBLIC_URL": "http://films.example"},
            flags={"data_dir": tmp_path / "b", "discovery": {"services": places}, "allowed_origins": (CREATOR_ORIGIN,)},
        )
        gateway = Running(settings, "api-gateway")
        async with gateway.started(door, DirectBinding()), listening(gateway.app) as ear:
            key = (tmp_path / "a" / "admin.key").read_text().strip()
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{ear}", headers={"authorization": f"Bearer {key}"}, timeout=60
            ) as made:
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
