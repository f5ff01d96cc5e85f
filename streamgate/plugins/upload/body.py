"""The body of a request, as bytes that arrive: bounded, with a time limit between two pieces, taken in portions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from streamgate.domain.errors import DeadlineExceeded, PayloadTooLarge
from streamgate.plugins.upload.tus import Checksum


class SenderGone(Exception):
    """The client went away, or sent nothing for too long: what came before counts."""


class Body:
    """``receive``: the ASGI callable. ``idle_s``: longest silence in seconds."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], *, idle_s: float) -> None:
        self.done = False
        self._receive = receive
        self._idle_s = idle_s
        self._limit: int | None = None
        self._checksum: Checksum | None = None
        self._came = 0
        self._rest = b""

    def expect(self, limit: int, checksum: Checksum | None) -> None:
        """The body may have ``limit`` bytes; what comes goes through the checksum. Before anything is taken."""
        self._limit, self._checksum = limit, checksum

    async def take(self, most: int | None, within_s: float | None = None) -> AsyncIterator[bytes]:
        """Pieces until ``most`` bytes (None: all) or the end, or ``within_s`` seconds have gone by when one has come.

        Raises `SenderGone`, or `PayloadTooLarge` beyond the limit.
        """
        left = most
        until = None if within_s is None else time.monotonic() + within_s
        while not self.done or self._rest:
            piece = self._rest or await self._next()
            self._rest = b""
            if left is not None and len(piece) > left:
                piece, self._rest = piece[:left], piece[left:]
            if piece:
                yield piece
            if left is not None:
                left -= len(piece)
                if left == 0:
                    return
            if until is not None and time.monotonic() >= until:
                return

    async def finish(self) -> None:
        """Wait for the end where no more bytes may come: raises `PayloadTooLarge` when some do.

        That the sender goes away instead changes nothing of what it sent.
        """
        with contextlib.suppress(SenderGone):
            async for _ in self.take(None):
                pass

    @property
    def exhausted(self) -> bool:
        """Whether everything was taken."""
        return self.done and not self._rest

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._receive()
        except (TimeoutError, DeadlineExceeded):
            raise SenderGone from None
        if message["type"] == "http.disconnect":
            raise SenderGone
        piece: bytes = message.get("body", b"")
        self.done = not message.get("more_body", False)
        self._came += len(piece)
        if self._limit is not None and self._came > self._limit:
            raise PayloadTooLarge("The body is longer than what is left of the upload.")
        if self._checksum is not None:
            self._checksum.digest.update(piece)
        return piece
