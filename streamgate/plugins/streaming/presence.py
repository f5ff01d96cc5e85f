"""Who asks may leave before there is an answer, as a player does that seeks away: then what is made for it is wanted no more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Any

from streamgate.domain.errors import StreamGateError

SOON_S = 0.1
"""Seconds within which nearly everything is answered; only then is it worth a look whether anybody is still there."""


class ClientLeft(Exception):
    """The client has closed its connection: there is nobody to answer."""


class Presence:
    """``with Presence(receive):`` the block is cancelled when the client leaves before its end, and `ClientLeft` raised.

    ``receive`` is the request's own, whose body (if it has one) is of no interest.
    """

    __slots__ = ("_left", "_receive", "_timer", "_watch", "_work")

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self._left = False

    def __enter__(self) -> None:
        self._work = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(SOON_S, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        # Another cancellation on top of ours goes on.
        ours = self._left and self._work is not None and not self._work.uncancel()
        if ours and kind is asyncio.CancelledError:
            raise ClientLeft from None

    def _look(self) -> None:
        self._watch = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        with suppress(StreamGateError):
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._left = True
            if self._work is not None:
                self._work.cancel()
