"""Bus: facts (at least once) and signals (may be lost).

Payloads are bytes; headers are text. What a subject means is the contracts' business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """``id`` is unique per fact and the same on every delivery of it; empty for a signal."""

    subject: str
    payload: bytes
    id: str = ""
    headers: dict[str, str] = field(default_factory=dict)


Receiver = Callable[[Message], Awaitable[None]]


class Bus(ABC):
    """Facts and signals between plugins, wherever they run."""

    @abstractmethod
    async def publish(self, message: Message) -> None:
        """Hand over a fact. Returns when it is safe to forget it: the bus will deliver it to every consumer at least once.

        A bus that keeps nothing itself delivers before it returns and raises when a consumer failed, so that the
        outbox keeps the fact and tries again. Publishing the same id again is allowed at any time.
        """

    @abstractmethod
    async def consume(self, consumer: str, subject: str, receiver: Receiver) -> AbstractAsyncContextManager[None]:
        """Deliver every fact of ``subject`` to ``receiver``, until the returned block is left.

        Processes that name the same ``consumer`` share the facts among them. A receiver that raises gets the fact
        again, later. Facts published before the consumer's first registration are not delivered to it.
        """

    @abstractmethod
    async def signal(self, message: Message) -> None:
        """Tell whoever listens now; never raises for a bus that is away, never waits for the listeners."""

    @abstractmethod
    async def listen(
        self, subject: str, receiver: Receiver, *, group: str | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Hear signals of ``subject`` until the block is left; with ``group`` only one member of it hears each.

        `Unavailable` when the bus does not take that now.
        """

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the bus works now."""
