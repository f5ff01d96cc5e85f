"""Connecting what plugins listen to with the bus, and sending signals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import structlog

from streamgate.contracts.declare import is_fact, subject_of
from streamgate.ports.bus import Bus, Message, Receiver
from streamgate.runtime.trace import carried, continued

Listener = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def wire(bus: Bus, consumer: str, listens: Mapping[type, Listener]) -> AsyncIterator[None]:
    """Deliver each fact and signal class of ``listens`` to its receiver, as a value, for as long as the block runs."""
    async with AsyncExitStack() as stack:
        for kind, listener in listens.items():
            receiver = _decoding(kind, listener)
            subject = f"sg.{subject_of(kind)}"
            connected = (
                await bus.consume(consumer, subject_of(kind), receiver)
                if is_fact(kind)
                else await bus.listen(subject, receiver)
            )
            await stack.enter_async_context(connected)
        yield


async def send_signal(bus: Bus, signal: msgspec.Struct) -> None:
    """Send a signal (a Struct marked with `contracts.declare.signal`)."""
    await bus.signal(Message(f"sg.{subject_of(signal)}", msgspec.msgpack.encode(signal), headers=carried()))


def _decoding(kind: type, listener: Listener) -> Receiver:
    decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(kind).decode

    async def receive(message: Message) -> None:
        with structlog.contextvars.bound_contextvars(**continued(message.headers)):
            await listener(decode(message.payload))

    return receive
