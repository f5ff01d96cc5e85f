"""Facts over NATS JetStream, signals over core NATS.

Facts lie in one stream with limits retention, each consumer is a durable pull consumer that is made explicitly and mended when
it is found missing. A fact is acknowledged when its receiver has returned, so it is delivered at least once; which of the
deliveries count is the inbox's business. Signals are plain messages: whoever is not there does not hear them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from typing import Any, Self

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NothingCame
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from streamgate.domain.errors import ConfigurationError, Unavailable
from streamgate.ports.bus import Bus, Message, Receiver

STREAM = "SG_FACTS"
FACTS, SIGNALS = "sg.facts.", "sg.signals."
ID = "Nats-Msg-Id"

KEPT_S = 7 * 24 * 3600
DUPLICATES_S = 600
ACK_WAIT_S = 60
RECEIVER_S = 30.0
"""How long a receiver may take for one fact; then it counts as refused."""

AGAIN_S = 0.5
"""After which a task that has not ended is cancelled once more."""

FETCH_S = 2.0
"""A fetch that was on its way when the server restarted is lost, so none waits for long."""

IDLE_LOOKS = 5
"""Fetches that bring nothing, after which it is looked whether the consumer is still there: the client cannot tell."""

CONNECT_S = 6.0
PUBLISH_S = 5.0
LONGEST_PAUSE_S = 30.0
PING_S = 5.0
"""A server that answers neither of two pings, sent so far apart, counts as gone: a line can be dead without saying so."""
_ODD = re.compile(r"[^A-Za-z0-9_-]")


class NatsBus(Bus):
    """An async context manager: it owns its connection. ``url``: one or more, comma separated; they may hold credentials."""

    def __init__(self, url: str, *, replicas: int = 1) -> None:
        self._urls = [one.strip() for one in url.split(",") if one.strip()]
        self._replicas = replicas
        self._nats: Any = None
        self._js: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        async def lost(error: Exception) -> None:
            structlog.get_logger().warning("the bus has trouble", reason=type(error).__name__)

        self._nats = Client()
        try:
            # A client that reconnects for ever also tries for ever to connect at first.
            async with asyncio.timeout(CONNECT_S):
                await self._nats.connect(
                    servers=self._urls,
                    name="streamgate",
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.5,
                    connect_timeout=3,
                    ping_interval=PING_S,
                    max_outstanding_pings=2,
                    error_cb=lost,
                )
        except (NatsError, OSError, TimeoutError) as error:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await self._nats.close()
            raise ConfigurationError(f"NATS does not answer ({type(error).__name__}); check bus.url.") from None
        self._js = self._nats.jetstream(timeout=PUBLISH_S)
        try:
            await self._make_stream()
        except (NatsError, OSError, TimeoutError) as error:
            await self._nats.close()
            detail = f"NATS has no JetStream that can be used ({type(error).__name__}); start it with -js."
            raise ConfigurationError(detail) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._tasks)
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await self._nats.close()

    async def publish(self, message: Message) -> None:
        headers = {**message.headers, ID: message.id}
        try:
            await self._js.publish(FACTS + message.subject, message.payload, headers=headers, stream=STREAM)
        except (NatsError, OSError, TimeoutError) as error:
            # It may have been stored all the same; the id makes a second one the same.
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await self._make_stream()
            raise Unavailable("The bus does not take facts now.", retry_after=2) from error

    async def consume(self, consumer: str, subject: str, receiver: Receiver) -> AbstractAsyncContextManager[None]:
        name = _ODD.sub("-", f"{consumer}--{subject}")
        await self._make_consumer(name, subject)

        @asynccontextmanager
        async def registered() -> AsyncIterator[None]:
            task = self._start(self._deliver(name, subject, receiver))
            try:
                yield
            finally:
                await ended({task})

        return registered()

    async def signal(self, message: Message) -> None:
        try:
            await self._nats.publish(SIGNALS + message.subject, message.payload, headers=message.headers or None)
        except (NatsError, OSError, TimeoutError) as error:
            structlog.get_logger().warning("signal not sent", subject=message.subject, reason=type(error).__name__)

    async def listen(
        self, subject: str, receiver: Receiver, *, group: str | None = None
    ) -> AbstractAsyncContextManager[None]:
        async def hear(message: Msg) -> None:
            headers = dict(message.headers or {})
            self._start(_heard(receiver, Message(subject, message.data, headers=headers)))

        try:
            subscription = await self._nats.subscribe(SIGNALS + subject, queue=group or "", cb=hear)
        except (NatsError, OSError) as error:
            raise Unavailable("The bus does not answer now.", retry_after=2) from error
        try:
            await self._nats.flush()
        except BaseException as error:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await subscription.unsubscribe()
            if isinstance(error, (NatsError, OSError, TimeoutError)):
                raise Unavailable("The bus does not answer now.", retry_after=2) from error
            raise

        @asynccontextmanager
        async def registered() -> AsyncIterator[None]:
            try:
                yield
            finally:
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await subscription.unsubscribe()

        return registered()

    async def healthy(self) -> bool:
        try:
            await self._nats.flush(timeout=1)
        except (NatsError, OSError, TimeoutError):
            return False
        return bool(self._nats.is_connected)

    async def _make_stream(self) -> None:
        config = StreamConfig(
            name=STREAM,
            subjects=[f"{FACTS}>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=KEPT_S,
            duplicate_window=DUPLICATES_S,
            num_replicas=self._replicas,
        )
        try:
            await self._js.stream_info(STREAM)
        except NotFoundError:
            await self._js.add_stream(config)
        else:
            await self._js.update_stream(config)

    async def _make_consumer(self, name: str, subject: str) -> None:
        """What is there keeps its place; what is not begins with what comes from now on."""
        await self._js.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=name,
                filter_subject=FACTS + subject,
                deliver_policy=DeliverPolicy.NEW,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=100,
            ),
        )

    async def _deliver(self, name: str, subject: str, receiver: Receiver) -> None:
        """One fact after the other, for as long as the task runs."""
        idle, subscription = 0, None
        while True:
            try:
                if subscription is None:
                    subscription = await self._js.pull_subscribe_bind(durable=name, stream=STREAM)
                (message,) = await subscription.fetch(1, timeout=FETCH_S)
            except (NothingCame, TimeoutError):
                idle += 1
                if idle % IDLE_LOOKS == 0:
                    await self._mend(name, subject)
                continue
            except (NatsError, OSError) as error:
                structlog.get_logger().warning("facts cannot be fetched", consumer=name, reason=type(error).__name__)
                subscription = None
                await asyncio.sleep(1)
                await self._mend(name, subject)
                continue
            idle = 0
            await self._take(message, subject, receiver)

    async def _mend(self, name: str, subject: str) -> None:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            try:
                await self._js.consumer_info(STREAM, name)
            except NotFoundError:
                await self._make_stream()
                await self._make_consumer(name, subject)
                structlog.get_logger().warning("a consumer was gone and was made again", consumer=name)

    async def _take(self, message: Msg, subject: str, receiver: Receiver) -> None:
        given = dict(message.headers or {})
        headers = {name: value for name, value in given.items() if not name.startswith("Nats-")}
        fact = Message(subject, message.data, id=given.get(ID, ""), headers=headers)
        try:
            async with asyncio.timeout(RECEIVER_S):
                await receiver(fact)
        except Exception as error:  # noqa: BLE001 (whatever it was, the fact comes again)
            pause = min(LONGEST_PAUSE_S, 0.05 * 2 ** min(message.metadata.num_delivered, 12))
            structlog.get_logger().warning("fact not taken", subject=subject, id=fact.id, exc_info=error)
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await message.nak(delay=pause)
            return
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await message.ack_sync(timeout=PUBLISH_S)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # An empty context: who hears is not bound by the deadline of who sent.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until all have ended, whatever they raise.

    Once is not always enough: before Python 3.12 ``asyncio.wait_for``, by which the client library waits for answers, returns
    an answer that comes in the same moment and forgets that it was cancelled.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)


async def _heard(receiver: Callable[[Message], Any], message: Message) -> None:
    try:
        await receiver(message)
    except Exception as error:  # noqa: BLE001 (a signal is a hint; whoever missed it re-reads on a timer)
        structlog.get_logger().warning("signal not taken", subject=message.subject, exc_info=error)
