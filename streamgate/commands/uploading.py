"""``streamgate upload``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from streamgate.commands.calling import call
from streamgate.domain.errors import ConfigurationError, Conflict
from streamgate.uploader import Uploader, state_folder

LOOK_EVERY_S = 0.5


def run(file: Path, title: str | None, policy_file: Path | None, server: str, key: str) -> None:
    """Upload a film, wait until it plays, and say where."""
    policy = _read_policy(policy_file) if policy_file else None
    asyncio.run(_run(file, title, policy, server, key))


def _read_policy(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The policy {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"The policy {path} is no JSON object.")
    return document


async def _run(file: Path, title: str | None, policy: dict[str, Any] | None, server: str, key: str) -> None:
    metadata = {"filename": file.name, "title": title or file.stem}
    if policy is not None:
        metadata |= {"policy_id": await _policy_id(server, key, file, policy), "visibility": "gated"}
    uploader = Uploader(server, key, state_folder())
    with click.progressbar(length=max(1, _size(file)), label=file.name, file=sys.stderr) as bar:

        def show(stored: int, _size: int) -> None:
            bar.update(stored - bar.pos)

        done = await uploader.upload(file, metadata, show)
    await _wait_until_playable(server, key, done.asset_id)
    started = await call(server, key, "POST", f"/api/v1/assets/{done.asset_id}/playback")
    click.echo(done.asset_id)
    click.echo(started["hls_url"])


def _size(file: Path) -> int:
    return file.stat().st_size


async def _policy_id(server: str, key: str, file: Path, policy: dict[str, Any]) -> str:
    """The id of a stored policy with this document: the caller's own when there is one already, else a new one."""
    page = await call(server, key, "GET", "/api/v1/policies", query={"limit": 100})
    for stored in page["items"]:
        if stored["document"] == policy:
            return str(stored["id"])
    made = await call(
        server, key, "POST", "/api/v1/policies", body={"name": f"For {file.name}"[:200], "document": policy}
    )
    for warning in made["warnings"]:
        click.echo(f"Note: {warning}", err=True)
    return str(made["id"])


async def _wait_until_playable(server: str, key: str, asset_id: str) -> None:
    said = False
    while True:
        asset = await call(server, key, "GET", f"/api/v1/assets/{asset_id}")
        if asset["playable"]:
            return
        if asset["state"] in {"failed", "canceled"}:
            error = asset["error"] or {"code": "canceled", "detail": "Encoding was stopped."}
            raise Conflict(f"{error['detail']} [{error['code']}]")
        if not said:
            click.echo("Uploaded; waiting until it plays …", err=True)
            said = True
        await asyncio.sleep(LOOK_EVERY_S)
