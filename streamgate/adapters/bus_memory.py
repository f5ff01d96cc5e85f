"""The bus of one process: facts are delivered before `publish` returns, signals by tasks of their own."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from typing import Self

import structlog

from streamgate.ports.bus import Bus, Message, Receiver

REMEMBERED = 10_000
"""How many (consumer, fact) pairs are remembered as done, so that a fact that one consumer refused is not given again to
those that took it."""

RECEIVER_S = 30.0
"""How long a consumer may take for one fact; then it counts as refused, so that it cannot hold up the others."""


class MemoryBus(Bus):
    """Keeps nothing: the outbox is the memory of facts."""

    def __init__(self, *, receiver_s: float = RECEIVER_S) -> None:
        self._receiver_s = receiver_s
        self._consumers: dict[str, dict[str, Receiver]] = defaultdict(dict)
        self._listeners: dict[str, dict[int, tuple[str | None, Receiver]]] = defaultdict(dict)
        self._numbers = itertools.count()
        self._turn = itertools.count()
        self._done: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def publish(self, message: Message) -> None:
        refused: list[Exception] = []
        for consumer, receiver in list(self._consumers[message.subject].items()):
            if (consumer, message.id) in self._done:
                continue
            try:
                async with asyncio.timeout(self._receiver_s):
                    await receiver(message)
            except Exception as error:  # noqa: BLE001 (the others get the fact all the same)
                refused.append(error)
            else:
                self._done[consumer, message.id] = None
                while len(self._done) > REMEMBERED:
                    self._done.popitem(last=False)
        if refused:
            raise ExceptionGroup(f"{message.subject} was refused", refused)

    async def consume(self, consumer: str, subject: str, receiver: Receiver) -> AbstractAsyncContextManager[None]:
        if consumer in self._consumers[subject]:
            raise ValueError(f"{consumer} consumes {subject} already")
        self._consumers[subject][consumer] = receiver

        @asynccontextmanager
        async def registered() -> AsyncIterator[None]:
            try:
                yield
            finally:
                del self._consumers[subject][consumer]

        return registered()

    async def signal(self, message: Message) -> None:
        groups: dict[str, list[Receiver]] = defaultdict(list)
        for group, receiver in self._listeners[message.subject].values():
            if group is None:
                self._start(receiver, message)
            else:
                groups[group].append(receiver)
        for members in groups.values():
            self._start(members[next(self._turn) % len(members)], message)

    async def listen(
        self, subject: str, receiver: Receiver, *, group: str | None = None
    ) -> AbstractAsyncContextManager[None]:
        number = next(self._numbers)
        self._listeners[subject][number] = (group, receiver)

        @asynccontextmanager
        async def registered() -> AsyncIterator[None]:
            try:
                yield
            finally:
                del self._listeners[subject][number]

        return registered()

    async def healthy(self) -> bool:
        return True

    def _start(self, receiver: Receiver, message: Message) -> None:
        async def run() -> None:
            try:
                await receiver(message)
            except Exception as error:  # noqa: BLE001 (a signal is a hint; whoever missed it re-reads on a timer)
                structlog.get_logger().warning("signal not taken", subject=message.subject, exc_info=error)

        # an empty context: who hears a signal is not bound by the deadline of who sent it
        task = asyncio.get_running_loop().create_task(run(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
