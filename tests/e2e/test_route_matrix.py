"""Every route with real things, asked by nobody, a viewer, another creator, the owner and the administrator.

A route of the OpenAPI document or of the media address without a row here fails the suite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from streamgate.plugins.api_gateway.documents import snapshot
from streamgate.plugins.streaming.media_app import ROUTES
from tests.support.product import TUS, play, upload, wait_final
from tests.support.server import Server
from tests.support.spoken import spoken_film
from tests.support.topology import Topology
from tests.support.wallet import Wallet

pytestmark = pytest.mark.timeout(180)
PERSONAS = ("anonymous", "viewer", "other", "owner", "admin")


@dataclass
class World:
    """A server with one owner's things in it."""

    server: Server
    wallets: dict[str, Wallet]
    tokens: dict[str, str | None]
    film: str = ""
    made: dict[str, str] = field(default_factory=dict)

    def client(self, persona: str) -> httpx.Client:
        return self.server.client(self.tokens[persona])

    def create(self, path: str, body: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """Something new of the owner's."""
        with self.client("owner") as http:
            answer = http.post(path, json=body, **more) if body is not None else http.post(path, **more)
        assert answer.status_code in {200, 201}, answer.text
        return answer

    def upload(self) -> str:
        return (
            self.create("/api/v1/uploads", headers=TUS | {"upload-length": "4"}).headers["location"].rsplit("/", 1)[1]
        )

    def asset(self) -> str:
        return self.create("/api/v1/uploads", headers=TUS | {"upload-length": "4"}).headers["streamgate-asset"]

    def policy(self) -> str:
        return str(self.create("/api/v1/policies", {"name": "Viewers", "document": self.document()}).json()["id"])

    def document(self) -> dict[str, Any]:
        return {"v": 1, "expr": {"allowlist": {"addresses": [self.wallets["viewer"].address]}}}

    def key(self) -> str:
        return str(self.create("/api/v1/auth/api-keys", {"name": "a key"}).json()["id"])

    def playback(self) -> str:
        return str(self.create(f"/api/v1/assets/{self.film}/playback", {}).json()["session_id"])

    def session(self) -> str:
        token = self.wallets["owner"].sign_in(self.server.url)
        with self.server.client(token) as http:
            return str(http.get("/api/v1/auth/session").json()["id"])

    def job(self) -> str:
        with self.client("owner") as http:
            return str(http.get("/api/v1/jobs?state=done").json()["items"][0]["id"])

    def visible(self, visibility: str) -> str:
        """The film, listed as told."""
        with self.client("owner") as http:
            policy = self.made.setdefault("policy", self.policy())
            changed = http.patch(f"/api/v1/assets/{self.film}", json={"visibility": visibility, "policy_id": policy})
            assert changed.status_code == 200, changed.text
        return self.film


@pytest.fixture(scope="module")
def world(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    wallets = {name: Wallet() for name in ("viewer", "other", "owner")}
    settings = {
        "auth.creators": [wallets["other"].address, wallets["owner"].address],
        "transcoder.rungs": [240],
        "transcoder.preset": "ultrafast",
        "transcoder.passthrough": False,
        "api_gateway.sign_in_burst": 1000,
        "streaming.max_streams": 0,
    }
    with topology.serving(tmp_path_factory.mktemp("matrix") / "data", settings) as server:
        tokens: dict[str, str | None] = {"anonymous": None, "admin": server.admin_key}
        tokens |= {name: wallet.sign_in(server.url) for name, wallet in wallets.items()}
        made = World(server, wallets, tokens)
        source = spoken_film(tmp_path_factory.mktemp("spoken"), seconds=8)
        made.film = upload(server, source, tokens["owner"], title="The owner's")
        assert wait_final(server, made.film)["state"] == "ready"
        yield made


@dataclass(frozen=True)
class Row:
    """``statuses``: what each persona is answered. ``ask``: parts of the request, made anew for each persona."""

    statuses: tuple[int, int, int, int, int]
    ask: Callable[[World, str], dict[str, Any]] = lambda _world, _persona: {}


def challenge(world: World) -> dict[str, str]:
    wallet = world.wallets["viewer"]
    with world.server.client() as http:
        message = http.post("/api/v1/auth/challenges", json={"address": wallet.address, "chain_id": 1}).json()[
            "message"
        ]
    return {"message": message, "signature": wallet.sign(message)}


def refresh_token(world: World) -> dict[str, str]:
    with world.server.client() as http:
        return {"refresh_token": http.post("/api/v1/auth/sessions", json=challenge(world)).json()["refresh_token"]}


def signed_in_anew(world: World, persona: str) -> dict[str, Any]:
    if persona not in world.wallets:
        return {}
    token = world.wallets[persona].sign_in(world.server.url)
    return {"headers": {"authorization": f"Bearer {token}"}}


def film(visibility: str, **more: Any) -> Callable[[World, str], dict[str, Any]]:
    return lambda world, _: {"ids": {"asset_id": world.visible(visibility)}, **more}


def thing(name: str, make: str, **more: Any) -> Callable[[World, str], dict[str, Any]]:
    return lambda world, _: {"ids": {name: getattr(world, make)()}, **more}


ANYBODY = (200, 200, 200, 200, 200)
SIGNED_IN = (401, 200, 200, 200, 200)
CREATORS = (401, 403, 200, 200, 200)
NEW = (401, 403, 201, 201, 201)
OWN = (401, 403, 404, 200, 200)
OWN_GONE = (401, 403, 404, 204, 204)
OWN_CONFLICT = (401, 403, 404, 409, 409)
ADMIN = (401, 403, 403, 403, 200)

ROWS: dict[str, list[Row]] = {
    "GET /.well-known/jwks.json": [Row(ANYBODY)],
    "GET /api/v1/assets": [Row(ANYBODY)],
    "GET /api/v1/assets/{asset_id}": [
        Row((404, 404, 404, 200, 200), film("private")),
        Row(ANYBODY, film("gated")),
        Row(ANYBODY, film("public")),
    ],
    "PATCH /api/v1/assets/{asset_id}": [
        Row(OWN, film("private", json={"title": "New"})),
        Row((401, 403, 403, 200, 200), film("gated", json={"title": "New"})),
        Row((401, 403, 403, 200, 200), film("public", json={"title": "New"})),
    ],
    "DELETE /api/v1/assets/{asset_id}": [
        Row(OWN_GONE, thing("asset_id", "asset")),
        Row((401, 403, 403, None, None), film("public")),  # type: ignore[arg-type]
    ],
    "POST /api/v1/assets/{asset_id}/cancel": [
        Row(OWN_CONFLICT, film("private")),
        Row((401, 403, 403, 409, 409), film("public")),
    ],
    "POST /api/v1/assets/{asset_id}/retry": [
        Row(OWN_CONFLICT, film("private")),
        Row((401, 403, 403, 409, 409), film("public")),
    ],
    "GET /api/v1/assets/{asset_id}/events": [
        Row(OWN, film("private")),
        Row((401, 403, 403, 200, 200), film("public")),
    ],
    "POST /api/v1/assets/{asset_id}/playback": [
        Row((404, 404, 404, 201, 201), film("private", json={})),
        Row((401, 201, 403, 201, 201), film("gated", json={})),
        Row((201, 201, 201, 201, 201), film("public", json={})),
    ],
    "GET /api/v1/assets/{asset_id}/poster.jpg": [
        Row((404, 404, 404, 200, 200), film("private")),
        Row(ANYBODY, film("gated")),
    ],
    "GET /api/v1/auth/api-keys": [Row(CREATORS)],
    "POST /api/v1/auth/api-keys": [Row(NEW, lambda *_: {"json": {"name": "k"}})],
    "DELETE /api/v1/auth/api-keys/{key_id}": [Row(OWN_GONE, thing("key_id", "key"))],
    "POST /api/v1/auth/challenges": [
        Row((201, 201, 201, 201, 201), lambda w, _: {"json": {"address": w.wallets["viewer"].address, "chain_id": 1}})
    ],
    "POST /api/v1/auth/sessions": [Row((201, 201, 201, 201, 201), lambda w, _: {"json": challenge(w)})],
    "POST /api/v1/auth/sessions/refresh": [Row(ANYBODY, lambda w, _: {"json": refresh_token(w)})],
    "GET /api/v1/auth/session": [Row(SIGNED_IN)],
    "DELETE /api/v1/auth/session": [Row((401, 204, 204, 204, 403), signed_in_anew)],
    "GET /api/v1/auth/sessions": [Row(SIGNED_IN)],
    "DELETE /api/v1/auth/sessions/{session_id}": [Row((401, 404, 404, 204, 204), thing("session_id", "session"))],
    "POST /api/v1/cache/purge": [Row(ADMIN, lambda *_: {"json": {"tags": ["asset:ast_x"]}})],
    "GET /api/v1/cache/stats": [Row(ADMIN)],
    "POST /api/v1/cache/warm": [
        Row((401, 403, 403, 403, 202), lambda w, _: {"json": {"asset_ids": [w.film]}}),
    ],
    "GET /api/v1/jobs": [Row(CREATORS)],
    "GET /api/v1/jobs/{job_id}": [Row(OWN, thing("job_id", "job"))],
    "POST /api/v1/jobs/{job_id}/cancel": [Row(OWN_CONFLICT, thing("job_id", "job"))],
    "POST /api/v1/jobs/{job_id}/retry": [Row(OWN_CONFLICT, thing("job_id", "job"))],
    "GET /api/v1/playback": [Row(SIGNED_IN)],
    "DELETE /api/v1/playback/{session_id}": [Row((401, 404, 404, 204, 204), thing("session_id", "playback"))],
    "GET /api/v1/policies": [Row(CREATORS)],
    "POST /api/v1/policies": [Row(NEW, lambda w, _: {"json": {"name": "p", "document": w.document()}})],
    "POST /api/v1/policies/evaluate": [
        Row(OWN, lambda w, _: {"json": {"policy_id": w.policy(), "account": w.wallets["viewer"].address}})
    ],
    "GET /api/v1/policies/{policy_id}": [Row(OWN, thing("policy_id", "policy"))],
    "PUT /api/v1/policies/{policy_id}": [
        Row(OWN, lambda w, _: {"ids": {"policy_id": w.policy()}, "json": {"name": "p", "document": w.document()}})
    ],
    "GET /api/v1/schedules": [Row(ADMIN)],
    "GET /api/v1/system/status": [Row(ADMIN)],
    "POST /api/v1/uploads": [Row(NEW, lambda *_: {"headers": {"upload-length": "4"}})],
    "GET /api/v1/uploads/{upload_id}": [Row(OWN, thing("upload_id", "upload"))],
    "HEAD /api/v1/uploads/{upload_id}": [Row(OWN, thing("upload_id", "upload"))],
    "DELETE /api/v1/uploads/{upload_id}": [Row(OWN_GONE, thing("upload_id", "upload"))],
    "PUT /api/v1/uploads/{upload_id}/index": [
        Row(
            OWN_GONE,
            thing(
                "upload_id",
                "upload",
                headers={"upload-offset": "2", "content-type": "application/offset+octet-stream"},
                content=b"cd",
            ),
        )
    ],
    "PATCH /api/v1/uploads/{upload_id}": [
        Row(
            OWN_GONE,
            thing(
                "upload_id",
                "upload",
                headers={"upload-offset": "0", "content-type": "application/offset+octet-stream"},
                content=b"ab",
            ),
        )
    ],
}
"""Method and path → what each persona is answered (None: not asked, since it would end what the others need)."""


def operations() -> set[str]:
    document: dict[str, Any] = json.loads(snapshot())
    return {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    }


def test_every_route_has_a_row() -> None:
    assert operations() == set(ROWS)


@pytest.mark.parametrize("operation", ROWS)
def test_who_may_what(world: World, operation: str) -> None:
    method, path = operation.split(" ")
    for number, row in enumerate(ROWS[operation]):
        found: list[int | None] = []
        for persona, expected in zip(PERSONAS, row.statuses, strict=True):
            if expected is None:
                found.append(None)
                continue
            parts = dict(row.ask(world, persona))
            filled = path.format(**parts.pop("ids", {}))
            headers = TUS | parts.pop("headers", {})
            with world.client(persona) as http, http.stream(method, filled, headers=headers, **parts) as answer:
                found.append(answer.status_code)
                if answer.status_code >= 400 and method != "HEAD":
                    assert answer.headers["content-type"] == "application/problem+json"
        assert tuple(found) == row.statuses, f"{operation}, row {number}"


PLACES = {"{rendition}": "240p", "{n}": "0", "{lang}": "en"}


def media_path(template: str) -> str:
    for place, value in PLACES.items():
        template = template.replace(place, value)
    return template


@pytest.mark.parametrize("template", ROUTES)
def test_who_is_served_what(world: World, template: str) -> None:
    """A media address serves whoever may start playback, and nobody who comes with another token."""
    for visibility, statuses in (
        ("private", (404, 404, 404, 200, 200)),
        ("gated", (401, 200, 403, 200, 200)),
        ("public", ANYBODY),
    ):
        asset_id = world.visible(visibility)
        found = []
        for persona in PERSONAS:
            started = play(world.server, asset_id, world.tokens[persona])
            if started.status_code != 201:
                found.append(started.status_code)
                continue
            url = started.json()["hls_url"].removesuffix("master.m3u8") + media_path(template)
            found.append(httpx.get(url).status_code)
            token = url.split("/p/")[1].split("/")[0]
            forged = url.replace(token, token[:-1] + ("A" if token[-1] != "A" else "B"))
            other = url.replace(asset_id, world.made.setdefault("asset", world.asset()))
            assert [httpx.get(wrong).status_code for wrong in (forged, other)] == [404, 404]
        assert tuple(found) == statuses, visibility


KEYS_CANNOT = "DELETE /api/v1/auth/session"
"""A key is no session that could be signed out."""


@pytest.mark.parametrize("scope", sorted(set(re.findall(r'"x-scope": ?"([a-z:]+)"', snapshot().decode()))))
def test_a_narrowed_key_opens_its_part_and_no_other(world: World, scope: str) -> None:
    with world.client("admin") as http:
        made = http.post("/api/v1/auth/api-keys", json={"name": scope, "role": "admin", "scopes": [scope]})
    assert made.json()["scopes"] == [scope]
    document: dict[str, Any] = json.loads(snapshot())
    with world.server.client(made.json()["key"]) as http:
        for operation in sorted(operations()):
            method, path = operation.split(" ")
            told = document["paths"][path][method.lower()]
            needed, least = told.get("x-scope"), told["x-least-role"]
            if (needed is None and least == "anonymous") or operation == KEYS_CANNOT:
                continue
            filled = re.sub(r"\{\w+\}", "none", path)
            with http.stream(method, filled, headers=TUS) as answer:
                assert (answer.status_code == 403) == (needed != scope), operation


def test_a_narrowed_key_makes_no_wider_one(world: World) -> None:
    with world.client("admin") as http:
        made = http.post("/api/v1/auth/api-keys", json={"name": "n", "scopes": ["keys:write", "jobs:read"]}).json()
        wrong = http.post("/api/v1/auth/api-keys", json={"name": "n", "scopes": ["keys:writ"]})
        none = http.post("/api/v1/auth/api-keys", json={"name": "n", "scopes": []})
    assert [wrong.status_code, none.status_code] == [422, 422]
    assert "keys:write" in wrong.json()["detail"]
    with world.server.client(made["key"]) as http:
        wider = [None, ["assets:read"], ["jobs:read", "assets:read"]]
        refused = [http.post("/api/v1/auth/api-keys", json={"name": "w", "scopes": scopes}) for scopes in wider]
        assert [answer.status_code for answer in refused] == [403, 403, 403]
        narrow = http.post("/api/v1/auth/api-keys", json={"name": "w", "scopes": ["jobs:read"]})
        assert narrow.status_code == 201
