"""Everything that takes the right to watch away does so while somebody watches, at once; and keys change without sign-outs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.films import film
from tests.support.product import play, problem, upload, wait_final, wait_playable
from tests.support.server import Server, wait_for
from tests.support.topology import Topology
from tests.support.wallet import Wallet

SMALL = {
    "auth.creators": ["*"],
    "transcoder.rungs": [240, 360],
    "transcoder.preset": "ultrafast",
    "transcoder.passthrough": False,
}
SOON_S = 3.0
"""Long before the time to live of an answer (30 s) is over."""


@dataclass
class Watching:
    """A viewer in the middle of a film."""

    server: Server
    film: str
    policy: str
    viewer: Wallet
    token: str
    url: str

    def status(self) -> tuple[int, str]:
        """What a segment is answered with."""
        answer = httpx.get(self.url)
        return (200, "") if answer.status_code == 200 else problem(answer)

    def change(self, **changes: Any) -> None:
        """The owner changes the film."""
        with self.server.admin() as http:
            assert http.patch(f"/api/v1/assets/{self.film}", json=changes).status_code == 200


@dataclass
class Refreshed:
    """A session that was refreshed twice: its first refresh token and its third, and when (monotonic) that was."""

    first: str
    third: str
    access: str
    at: float


@pytest.fixture(scope="module", autouse=True)
def refreshed(shared: Server) -> Refreshed:
    """Made before the other tests of this file, which take the time that has to go by."""
    wallet = Wallet()
    with shared.client() as http:

        def post(path: str, **body: Any) -> Any:
            return http.post(f"/api/v1/auth/{path}", json=body).raise_for_status().json()

        message = post("challenges", address=wallet.address, chain_id=1)["message"]
        first = post("sessions", message=message, signature=wallet.sign(message))["refresh_token"]
        second = post("sessions/refresh", refresh_token=first)
        assert second["refresh_token"] != first
        third = post("sessions/refresh", refresh_token=second["refresh_token"])["refresh_token"]
    return Refreshed(first, third, second["access_token"], time.monotonic())


def document(*wallets: Wallet) -> dict[str, Any]:
    return {"v": 1, "expr": {"allowlist": {"addresses": [wallet.address for wallet in wallets]}}}


@pytest.fixture
def watching(shared: Server, tmp_path: Path) -> Watching:
    viewer = Wallet()
    with shared.admin() as http:
        policy = http.post("/api/v1/policies", json={"name": "One", "document": document(viewer)}).json()["id"]
    asset_id = upload(shared, film(tmp_path, seconds=2), visibility="gated", policy_id=policy)
    wait_playable(shared, asset_id)
    token = viewer.sign_in(shared.url)
    started = play(shared, asset_id, token)
    assert started.status_code == 201, started.text
    url = started.json()["hls_url"].replace("master.m3u8", "240p/0.m4s")
    found = Watching(shared, asset_id, policy, viewer, token, url)
    for _ in range(3):
        assert found.status() == (200, "")
    return found


def hidden(w: Watching) -> None:
    w.change(visibility="private")


def policy_changed(w: Watching) -> None:
    with w.server.admin() as http:
        told = {"name": "Others", "document": document(Wallet())}
        assert http.put(f"/api/v1/policies/{w.policy}", json=told).status_code == 200


def policy_replaced(w: Watching) -> None:
    with w.server.admin() as http:
        other = http.post("/api/v1/policies", json={"name": "Others", "document": document(Wallet())}).json()["id"]
    w.change(policy_id=other)


def policy_detached(w: Watching) -> None:
    w.change(policy_id=None)


def deleted(w: Watching) -> None:
    with w.server.admin() as http:
        assert http.delete(f"/api/v1/assets/{w.film}").status_code == 204


def signed_out(w: Watching) -> None:
    with w.server.client(w.token) as http:
        assert http.delete("/api/v1/auth/session").status_code == 204


def session_revoked(w: Watching) -> None:
    with w.server.client(w.viewer.sign_in(w.server.url)) as http:
        for session in http.get("/api/v1/auth/sessions").json()["items"]:
            if not session["current"]:
                assert http.delete(f"/api/v1/auth/sessions/{session['id']}").status_code == 204


def stopped(w: Watching) -> None:
    with w.server.client(w.token) as http:
        (session,) = http.get("/api/v1/playback").json()["items"]
        assert session["asset_id"] == w.film
        assert http.delete(f"/api/v1/playback/{session['session_id']}").status_code == 204


ENDS: dict[Callable[[Watching], None], set[tuple[int, str]]] = {
    hidden: {(403, "session_revoked")},
    policy_changed: {(403, "entitlement_lost")},
    policy_replaced: {(403, "entitlement_lost")},
    policy_detached: {(403, "entitlement_lost")},
    deleted: {(403, "session_revoked")},
    signed_out: {(403, "session_revoked")},
    session_revoked: {(403, "session_revoked")},
    stopped: {(403, "session_revoked")},
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_playback_ends(watching: Watching, end: Callable[[Watching], None]) -> None:
    end(watching)
    wait_for(lambda: watching.status() in ENDS[end], SOON_S, 0.05)
    assert watching.status() in ENDS[end]


def test_playback_under_a_key_ends_with_the_key(shared: Server, ready_film: str) -> None:
    with shared.client(Wallet().sign_in(shared.url)) as http:
        made = http.post("/api/v1/auth/api-keys", json={"name": "player", "role": "viewer"}).json()
        url = play(shared, ready_film, made["key"]).json()["hls_url"]
        assert httpx.get(url).status_code == 200
        assert http.delete(f"/api/v1/auth/api-keys/{made['id']}").status_code == 204
    wait_for(lambda: httpx.get(url).status_code == 403, SOON_S, 0.05)
    assert problem(httpx.get(url)) == (403, "session_revoked")


def test_a_used_refresh_token_ends_the_family_and_what_plays_under_it(
    shared: Server, ready_film: str, refreshed: Refreshed
) -> None:
    with shared.client() as http:
        url = play(shared, ready_film, refreshed.access).json()["hls_url"]
        assert httpx.get(url).status_code == 200
        # Within ten seconds a repeated request is a lost answer asked for again.
        wait_for(lambda: time.monotonic() > refreshed.at + 10.2, 12)
        # The first one is two generations old: whoever still has it is not who it was given to.
        stolen = http.post("/api/v1/auth/sessions/refresh", json={"refresh_token": refreshed.first})
        assert problem(stolen) == (401, "unauthenticated")
        refused = http.post("/api/v1/auth/sessions/refresh", json={"refresh_token": refreshed.third})
        assert problem(refused) == (401, "unauthenticated")
    wait_for(lambda: httpx.get(url).status_code == 403, SOON_S, 0.05)


def test_keys_change_without_sign_outs(topology: Topology, tmp_path: Path) -> None:
    """New keys in front, old ones kept: tokens and playback of before go on, new ones are signed with the new."""

    def keys(*names: str) -> str:
        lines = [f"{name} {known.setdefault(name, os.urandom(32).hex())}" for name in names]
        path = tmp_path / f"keys-{'-'.join(names)}"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return str(path)

    def told(signing: str, playback: str) -> dict[str, Any]:
        return SMALL | {"auth.signing_keys_file": signing, "streaming.playback_keys_file": playback}

    known: dict[str, str] = {}
    viewer = Wallet()
    with topology.starting(tmp_path / "data", port=topology.port()) as start:
        server = start(told(keys("a"), keys("1")))
        asset_id = upload(server, film(tmp_path, seconds=2), visibility="public")
        assert wait_final(server, asset_id)["state"] == "ready"
        token = viewer.sign_in(server.url)
        url = play(server, asset_id, token).json()["hls_url"]
        start(told(keys("b", "a"), keys("2", "1")))
        with server.client(token) as http:
            assert http.get("/api/v1/auth/session").status_code == 200
        assert httpx.get(url).status_code == 200
        assert {key["kid"] for key in httpx.get(f"{server.url}/.well-known/jwks.json").json()["keys"]} == {"a", "b"}
        newer = viewer.sign_in(server.url)
        newer_url = play(server, asset_id, newer).json()["hls_url"]
        start(told(keys("b"), keys("2")))
        assert [httpx.get(one).status_code for one in (url, newer_url)] == [404, 200]
        for one, expected in ((token, 401), (newer, 200)):
            with server.client(one) as http:
                assert http.get("/api/v1/auth/session").status_code == expected
