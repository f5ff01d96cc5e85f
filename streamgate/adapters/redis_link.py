"""The connections of one process to Redis, for everything in it that can do without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError

from streamgate.domain.clock import Clock
from streamgate.domain.errors import ConfigurationError, Unavailable

T = TypeVar("T")

MOST_CONNECTIONS = 32
CONNECT_S = 0.5
ANSWER_S = 1.0
PAUSE_S = 1.0
"""After a failure Redis is left alone for so long; then one operation tries it before the others."""


class RedisLink:
    """An async context manager. ``url``: ``redis://``, ``rediss://`` or ``unix://``; it may hold credentials.

    Redis need not answer at the start. `ConfigurationError` for an address that is none.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        try:
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=MOST_CONNECTIONS,
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                health_check_interval=30,
                protocol=2,
                # Connections that a restart of the server cut are found out one by one, at their next use.
                retry=Retry(NoBackoff(), 1, supported_errors=(NoConnection,)),
            )
        except ValueError as error:
            raise ConfigurationError(f"cache.url is no address of a Redis server: {error}") from None
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._clock = clock
        self._paused_until = 0.0
        self._away = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        await self._pool.aclose()

    def script(self, source: str) -> Callable[..., Awaitable[Any]]:
        """A Lua script: called with ``keys``, ``args`` and perhaps ``client`` it runs as one."""
        return self._redis.register_script(source)

    async def run(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """What ``operation`` returns; `Unavailable` at once while Redis is known to be away, and when it fails here."""
        now = self._clock.monotonic()
        if self._away:
            if now < self._paused_until:
                raise Unavailable("Redis does not answer.", retry_after=self._paused_until - now)
            self._paused_until = now + PAUSE_S
        try:
            result = await operation(self._redis)
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            if not _is_fault(error):
                raise
            self._paused_until = self._clock.monotonic() + PAUSE_S
            if not self._away:
                structlog.get_logger().warning("Redis does not answer", reason=type(error).__name__)
            self._away = True
            raise Unavailable("Redis does not answer.", retry_after=PAUSE_S) from error
        if self._away:
            structlog.get_logger().info("Redis answers again")
        self._away = False
        return result

    async def healthy(self) -> bool:
        """Whether Redis answers now; asked without regard to the pause."""
        try:
            return bool(await self._redis.ping())
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            if not _is_fault(error):
                raise
            return False


def _is_fault(error: Exception) -> bool:
    """Whether it comes of the connection. uvloop says of a transport that was cut a moment ago that its handle is closed."""
    return not isinstance(error, RuntimeError) or "handler is closed" in str(error)
