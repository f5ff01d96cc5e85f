"""``streamgate upload``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from streamgate.commands.calling import call
from streamgate.domain.errors import ConfigurationError, Conflict, NotFound, Unavailable
from streamgate.uploader import Uploaded, Uploader, state_folder

LOOK_EVERY_S = 0.5


def run(file: Path, title: str | None, policy_file: Path | None, server: str, key: str) -> None:
    """Upload a film, and say where it plays as soon as it does, which may be long before its last byte."""
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
    uploader, address = Uploader(server, key, state_folder()), _Address(server, key)
    try:
        with click.progressbar(length=max(1, _size(file)), label=file.name, file=sys.stderr) as bar:

            def show(stored: int, _size: int) -> None:
                bar.update(stored - bar.pos)

            done = await uploader.upload(file, metadata, show, address.announced)
        await _wait_until_playable(server, key, done.asset_id)
        await address.told(done.asset_id)
    finally:
        address.close()


class _Address:
    """Says where a film plays, once, as soon as it does: that may be while it is uploaded."""

    def __init__(self, server: str, key: str) -> None:
        self._server, self._key = server, key
        self._looking: asyncio.Task[None] | None = None

    def announced(self, upload: Uploaded) -> None:
        """The server knows of the film."""
        self.close()
        self._looking = asyncio.get_running_loop().create_task(self._tell(upload.asset_id))

    async def told(self, asset_id: str) -> None:
        """Return when it has been said; the film plays."""
        try:
            await (self._looking or self._tell(asset_id))
        except NotFound:  # of an upload that expired while it was away, and was begun anew
            await self._tell(asset_id)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _tell(self, asset_id: str) -> None:
        while True:
            if await self._plays(asset_id):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        started = await call(self._server, self._key, "POST", f"/api/v1/assets/{asset_id}/playback")
        if sys.stderr.isatty():
            click.echo(err=True)  # the bar may stand on this line
        click.echo(f"{asset_id}\n{started['hls_url']}")

    async def _plays(self, asset_id: str) -> bool:
        try:
            asset = await call(self._server, self._key, "GET", f"/api/v1/assets/{asset_id}")
        except Unavailable:
            return False  # the upload says when that has lasted too long
        return bool(asset["playable"])


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
        if asset["playable"] and asset["state"] != "uploading":
            return
        if asset["state"] in {"failed", "canceled"}:
            error = asset["error"] or {"code": "canceled", "detail": "Encoding was stopped."}
            raise Conflict(f"{error['detail']} [{error['code']}]")
        if not said:
            click.echo("Uploaded; waiting until it plays …", err=True)
            said = True
        await asyncio.sleep(LOOK_EVERY_S)
