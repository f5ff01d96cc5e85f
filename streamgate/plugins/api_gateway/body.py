"""A request's body on its way to a service, and how long the two ends may keep each other waiting."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from streamgate.domain.errors import StreamGateError


class Patience:
    """Ends the block it encloses when the service keeps us waiting too long, or when the caller is gone.

    ``expired`` says afterwards that the service was too slow, ``gone`` that nobody waits for the answer any more. Only the
    service's silence is measured, never the time that a caller takes to send or to read.
    """

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._over = False
        self.gone = False

    @property
    def expired(self) -> bool:
        return self._timeout.expired() and not self.gone

    def on_service(self, seconds: float) -> None:
        """It is the service's turn, for at most so long."""
        if not self._over and not self.gone:
            self._timeout.reschedule(self._loop.time() + seconds)

    def on_caller(self) -> None:
        """It is the caller's turn."""
        if not self._over and not self.gone:
            self._timeout.reschedule(None)

    def give_up(self) -> None:
        """The caller is gone."""
        if not self._over and not self.gone:
            self.gone = True
            self._timeout.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        await self._timeout.__aexit__(kind, error, trace)


class Body:
    """What the caller sends, piece by piece: the next piece is asked for when the one before is written to the service.

    After the last piece somebody listens whether the caller is still there. ``sent``: the service took all of it.
    ``failure``: why it did not arrive.
    """

    def __init__(self, receive: Any, patience: Patience, service_s: float) -> None:
        self._receive = receive
        self._patience = patience
        self._service_s = service_s
        self._first = b""
        self._more = True
        self._watch: asyncio.Task[None] | None = None
        self.sent = False
        self.failure: StreamGateError | None = None

    async def begin(self) -> None:
        """Take in the first piece, which is often all of it."""
        self._first = await self._next()
        if not self._more:
            self.sent = True
            self._watch = asyncio.create_task(self._until_gone())

    @property
    def data(self) -> Any:
        """What is to be sent: bytes when that is all, None when there are none, else the pieces as they come."""
        if not self._more:
            return self._first or None
        return self._pieces()

    def end(self) -> None:
        """Listen no longer."""
        if self._watch is not None:
            self._watch.cancel()

    async def _pieces(self) -> Any:
        piece = self._first
        while True:
            if piece:
                self._patience.on_service(self._service_s)
                yield piece
            if not self._more:
                break
            self._patience.on_caller()
            piece = await self._next()
        self.sent = True
        self._patience.on_service(self._service_s)
        self._watch = asyncio.create_task(self._until_gone())

    async def _next(self) -> bytes:
        try:
            message = await self._receive()
        except StreamGateError as error:
            self.failure = error
            raise
        if message["type"] != "http.request":
            self._patience.give_up()
            # The service must not take what came for the whole.
            raise ConnectionResetError("the caller is gone")
        self._more = message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] == "http.request":
            pass
        self._patience.give_up()
