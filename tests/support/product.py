"""Doing with a running server what people do with it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.support import node
from tests.support.server import Server, wait_for

TUS = {"tus-resumable": "1.0.0"}
FINAL = {"ready", "failed", "canceled"}


def upload(server: Server, file: Path, token: str | None = None, **metadata: str) -> str:
    """Upload with tus-js-client; the asset's id."""
    arguments = {
        "endpoint": f"{server.url}/api/v1/uploads",
        "file": str(file),
        "token": token or server.admin_key,
        "metadata": {"filename": file.name, **metadata},
    }
    events = [json.loads(line) for line in node.run("tus_upload.mjs", arguments).splitlines()]
    return str(next(event["asset"] for event in events if event["event"] == "asset"))


def upload_bytes(server: Server, data: bytes, **metadata: str) -> str:
    """Upload some bytes in one request; the asset's id."""
    told = ",".join(
        f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in {"filename": "film.mp4", **metadata}.items()
    )
    headers = TUS | {"upload-length": str(len(data)), "upload-metadata": told}
    with server.admin() as http:
        if data:
            headers["content-type"] = "application/offset+octet-stream"
        made = http.post("/api/v1/uploads", headers=headers, content=data)
        assert made.status_code == 201, made.text
        return made.headers["streamgate-asset"]


def asset(server: Server, asset_id: str) -> dict[str, Any]:
    """The film as the administrator sees it."""
    with server.admin() as http:
        answer = http.get(f"/api/v1/assets/{asset_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_playable(server: Server, asset_id: str, timeout_s: float = 60) -> dict[str, Any]:
    """The film once it plays; fails when it cannot."""

    def look() -> dict[str, Any] | None:
        found = asset(server, asset_id)
        assert found["state"] != "failed", found["error"]
        return found if found["playable"] else None

    found: dict[str, Any] = wait_for(look, timeout_s, 0.1)
    return found


def wait_final(server: Server, asset_id: str, timeout_s: float = 120) -> dict[str, Any]:
    """The film once nothing happens to it any more."""

    def look() -> dict[str, Any] | None:
        found = asset(server, asset_id)
        return found if found["state"] in FINAL else None

    found: dict[str, Any] = wait_for(look, timeout_s, 0.2)
    return found


def play(server: Server, asset_id: str, token: str | None) -> httpx.Response:
    """Ask for playback as the bearer of a token, or as nobody."""
    with server.client(token) as http:
        return http.post(f"/api/v1/assets/{asset_id}/playback", json={})


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that must be a problem document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert {"type", "title", "detail", "request_id"} <= body.keys()
    return answer.status_code, body["code"]


def probe(url: str, *entries: str, feed: bytes | None = None) -> dict[str, Any]:
    """What ffprobe finds at an address, or (``-``) in the bytes that it is fed."""
    command = ["ffprobe", "-v", "error", "-of", "json", *entries, url]
    done = subprocess.run(command, capture_output=True, input=feed, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found
