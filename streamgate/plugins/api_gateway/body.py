"""A request's body on its way to a service, and how long the two ends may keep each other waiting."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from streamgate.domain.errors import StreamGateError

LISTENED_S = 0.05
"""What is answered sooner is not worth a listener of its own."""


class Patience:
    """Ends the block it encloses when the service keeps us waiting too long, or when the caller is gone.

    ``expired`` says afterwards that the service was too slow, ``gone`` that nobody waits for the answer any more. Only the
    service's silence is measured, never the time that a caller takes to send or to read.
    """

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._until: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._over = False
        self.gone = False

    @property
    def expired(self) -> bool:
        return self._timeout.expired() and not self.gone

    def on_service(self, seconds: float) -> None:
        """It is the service's turn, for at most so long."""
        self._until = self._loop.time() + seconds
        if self._alarm is None or self._until < self._alarm.when():
            self._wake_at(self._until)

    def on_caller(self) -> None:
        """It is the caller's turn."""
        self._until = None

    def give_up(self) -> None:
        """The caller is gone."""
        if not self._over and not self.gone:
            self.gone = True
            self._timeout.reschedule(self._loop.time())

    def _wake_at(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if self._over else self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        # Turns change often and an alarm is seldom true: whether it still holds is looked at when it rings.
        self._alarm = None
        if self._until is None or self.gone:
            return
        if self._until > self._loop.time():
            self._wake_at(self._until)
        else:
            self._timeout.reschedule(self._loop.time())

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._alarm is not None:
            self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, trace)


class Body:
    """What the caller sends, piece by piece: the next piece is asked for when the one before is written to the service.

    `LISTENED_S` after the last piece somebody begins to listen whether the caller is still there. ``sent``: the service took
    all of it. ``failure``: why it did not arrive.
    """

    def __init__(self, receive: Any, patience: Patience, service_s: float) -> None:
        self._receive = receive
        self._patience = patience
        self._service_s = service_s
        self._first = b""
        self._more = True
        self._soon: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self.sent = False
        self.failure: StreamGateError | None = None

    async def begin(self) -> None:
        """Take in the first piece, which is often all of it."""
        self._first = await self._next()
        if not self._more:
            self._all_sent()

    @property
    def data(self) -> Any:
        """What is to be sent: bytes when that is all, None when there are none, else the pieces as they come."""
        if not self._more:
            return self._first or None
        return self._pieces()

    @property
    def size(self) -> int | None:
        """How many bytes that is; None where they come piece by piece."""
        return None if self._more else len(self._first)

    def end(self) -> None:
        """Listen no longer."""
        if self._soon is not None:
            self._soon.cancel()
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
        self._all_sent()
        self._patience.on_service(self._service_s)

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

    def _all_sent(self) -> None:
        self.sent = True
        self._soon = asyncio.get_running_loop().call_later(LISTENED_S, self._listen)

    def _listen(self) -> None:
        self._watch = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] == "http.request":
            pass
        self._patience.give_up()
