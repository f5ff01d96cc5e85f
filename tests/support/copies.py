"""Databases made ahead of the test that wants one, since a copy takes longer than most tests."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from tests.support.postgres import Postgres


class Copies:
    """Copies of a database of a server: the next one is made, and used ones are dropped, while tests run."""

    def __init__(self, server: Postgres, template: str) -> None:
        self._server = server
        self._template = template
        self._thread = ThreadPoolExecutor(1)
        self._next = self._made()

    def take(self) -> str:
        """The name of a fresh copy."""
        name = self._next.result()
        self._next = self._made()
        return name

    def drop(self, name: str) -> None:
        """Remove one, soon."""
        self._thread.submit(self._server.drop, name)

    def close(self) -> None:
        """Make no more; before the server ends."""
        self._thread.shutdown()

    def _made(self) -> Future[str]:
        return self._thread.submit(self._server.create, self._template)
