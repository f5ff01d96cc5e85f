"""A tus client: uploads a file over a connection that may break at any time, and goes on in another run where it stopped."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from streamgate.domain.errors import NotFound, StreamGateError, Unavailable, UploadExpired
from streamgate.indexahead import index_at_end

VERSION = {"tus-resumable": "1.0.0"}
PIECE = 1 << 20
ATTEMPTS = 12
"""Times in a row that nothing gets through before it is given up."""

FIRST_ATTEMPTS = 5
"""The same before the server has answered at all: some six seconds, enough for a restart."""

LONGEST_WAIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A finished upload: its film, and where the upload was."""

    asset_id: str
    url: str


class Uploader:
    """Uploads files to one server. ``state_dir``: where unfinished uploads are remembered."""

    def __init__(self, server: str, key: str, state_dir: Path) -> None:
        self._server = server.rstrip("/")
        self._key = key
        self._state_dir = state_dir

    async def upload(
        self,
        path: Path,
        metadata: Mapping[str, str],
        progress: Callable[[int, int], None] = lambda _sent, _size: None,
        announced: Callable[[Uploaded], None] = lambda _upload: None,
    ) -> Uploaded:
        """Upload ``path``, from where an earlier run stopped if there was one. ``progress`` gets (bytes stored, size).

        ``announced`` gets the upload as soon as the server knows of it. The index of a film that has it at its end is sent first,
        so that the film plays while it is uploaded.

        Raises an error of the tree that the server answered with, or `Unavailable` when it cannot be reached for long.
        """
        size = _size(path)
        memory = self._state_dir / f"{self._mark(path, metadata)}.json"
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=120)
        headers = {**VERSION, "authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as http:
            failures = 0
            known = _recalled(memory)
            ahead = index_at_end(path)
            stored, begun = -1, False
            while True:
                try:
                    if known is None:
                        known = await self._create(http, size, metadata)
                        _remember(memory, known)
                    offset = await self._offset(http, known.url)
                    if offset > stored:
                        failures, stored = 0, offset
                    if not begun:
                        announced(known)
                        if ahead is not None and offset < ahead:
                            await self._send_index(http, known.url, path, ahead)
                        begun = True
                    progress(offset, size)
                    if offset < size:
                        await self._send(http, known.url, path, offset, lambda sent: progress(sent, size))
                    memory.unlink(missing_ok=True)
                    return known
                except (NotFound, UploadExpired):
                    if known is None:
                        raise
                    memory.unlink(missing_ok=True)
                    known, stored, begun = None, -1, False
                except (aiohttp.ClientError, TimeoutError, OSError, Unavailable) as error:
                    failures += 1
                    if failures >= (FIRST_ATTEMPTS if known is None else ATTEMPTS):
                        raise Unavailable(
                            f"{self._server} does not answer ({type(error).__name__}); is the server running?"
                        ) from error
                    await asyncio.sleep(min(LONGEST_WAIT_S, 0.2 * 2**failures) * random.uniform(0.5, 1))  # noqa: S311

    async def _create(self, http: aiohttp.ClientSession, size: int, metadata: Mapping[str, str]) -> Uploaded:
        described = ",".join(f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in metadata.items() if v)
        headers = {"upload-length": str(size), "upload-metadata": described}
        async with http.post(f"{self._server}/api/v1/uploads", headers=headers) as answer:
            await _check(answer)
            return Uploaded(answer.headers["streamgate-asset"], answer.headers["location"])

    async def _offset(self, http: aiohttp.ClientSession, url: str) -> int:
        async with http.head(url) as answer:
            if answer.status == 404:
                raise NotFound("The upload is not there any more.")
            if answer.status == 410:
                raise UploadExpired("The upload has expired.")
            await _check(answer)
            return int(answer.headers["upload-offset"])

    async def _send_index(self, http: aiohttp.ClientSession, url: str, path: Path, offset: int) -> None:
        """Send the end of the file ahead; a server that does not take it gets the film all the same."""
        headers = {
            "upload-offset": str(offset),
            "content-type": "application/offset+octet-stream",
            "content-length": str(_size(path) - offset),
        }
        async with http.put(f"{url}/index", data=_pieces(path, offset, lambda _sent: None), headers=headers) as answer:
            await answer.read()

    async def _send(
        self, http: aiohttp.ClientSession, url: str, path: Path, offset: int, sent: Callable[[int], None]
    ) -> None:
        headers = {
            "upload-offset": str(offset),
            "content-type": "application/offset+octet-stream",
            "content-length": str(_size(path) - offset),
        }
        async with http.patch(url, data=_pieces(path, offset, sent), headers=headers) as answer:
            await _check(answer)

    def _mark(self, path: Path, metadata: Mapping[str, str]) -> str:
        """What tells this upload from others: server, file as it is now, and what is said of it."""
        found = path.resolve().stat()
        told = json.dumps(
            [self._server, str(path.resolve()), found.st_size, found.st_mtime_ns, sorted(metadata.items())]
        )
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def state_folder() -> Path:
    """Where unfinished uploads are remembered (XDG Base Directory: state)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "streamgate" / "uploads"


def _size(path: Path) -> int:
    return path.stat().st_size


async def _pieces(path: Path, offset: int, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
            offset += len(piece)
            sent(offset)


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 400:
        return
    try:
        problem = await answer.json(content_type=None)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        raise Unavailable(f"HTTP {answer.status}; is that a StreamGate server?")
    raise StreamGateError.from_problem(problem)


def _recalled(memory: Path) -> Uploaded | None:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        return Uploaded(str(found["asset_id"]), str(found["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memory: Path, upload: Uploaded) -> None:
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory.write_text(json.dumps({"asset_id": upload.asset_id, "url": upload.url}), encoding="utf-8")
