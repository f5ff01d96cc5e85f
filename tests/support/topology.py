"""One process or nine: the same tests of the product for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.nine import SERVICES, Nine
from tests.support.redis import empty
from tests.support.server import Server, free_port, serving, wait_for

READERS = {name.replace("-", "_"): name for name in SERVICES} | {"chains": "auth"}
"""Section of the settings → the one service that reads it; what is not named here all may read."""

Starting = Callable[[Mapping[str, Any]], Server]


class Topology:
    """How the product is run in this session.

    ``apart``: the nine processes that all tests share, or None for one process; ``settings``: what the nine were told when they
    were started, beside what they need to find each other.
    """

    def __init__(self, apart: Nine | None, settings: Mapping[str, Any]) -> None:
        self.apart = apart
        self._usual = dict(settings)
        self._told = dict(settings)
        self._fixed: dict[str, dict[str, Any]] = {}
        if apart is not None:
            apart.gateway.services = apart.servers
            for name, server in apart.servers.items():
                self._fixed[name] = {key: value for key, value in server.settings.items() if key not in settings}

    def port(self) -> int:
        """A port that `serving` can take."""
        return self.apart.gateway.port if self.apart else free_port()

    @contextmanager
    def serving(
        self, folder: Path, settings: Mapping[str, Any] | None = None, *, port: int | None = None
    ) -> Iterator[Server]:
        """The product with these settings and no others: a process of its own in a folder, or the nine.

        Of the nine those that read what differs from before are started anew, then and afterwards.
        """
        with self.starting(folder, port=port) as start:
            yield start(settings or {})

    @contextmanager
    def starting(self, folder: Path, *, port: int | None = None) -> Iterator[Starting]:
        """Starts the product with some settings, and each further time with others on the data that it has, perhaps elsewhere.

        One process runs in a folder of its own. Of the nine, caches and the counts of rate limits are emptied before and with
        each start; films that were made meanwhile are deleted afterwards, so that nothing of them waits in the queue.
        """
        if self.apart is None:
            with ExitStack() as stack:

                def start(settings: Mapping[str, Any]) -> Server:
                    stack.close()
                    return stack.enter_context(serving(folder, settings, port=port))

                yield start
            return
        gateway, known = self.apart.gateway, self._films()
        empty(gateway.settings["cache.url"])
        try:
            yield lambda settings: self._tell(settings)
        finally:
            with gateway.admin() as http:
                gone = {http.delete(f"/api/v1/assets/{film}").status_code for film in self._films() - known}
            self._tell(self._usual)
        assert gone <= {204}, gone

    def _tell(self, settings: Mapping[str, Any]) -> Server:
        assert self.apart is not None
        old, new = self._told, dict(settings)
        changed = {key.split(".")[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        readers = {READERS.get(section) for section in changed}
        anew = {
            name: server for name, server in self.apart.servers.items() if server.service in readers or None in readers
        }
        for server in anew.values():
            assert server.stop() == 0, server.log()[-3000:]
        # What was counted at another rate would be held against callers for as long as that takes.
        empty(self.apart.gateway.settings["cache.url"])
        for name, server in anew.items():
            server.settings = self._fixed[name] | new
            server.start(wait=False)
        for server in anew.values():
            server.wait_ready(time.monotonic())
        self._told = new
        if anew:
            self._wait_joined()
        return self.apart.gateway

    def _wait_joined(self) -> None:
        """Return when every service reaches those that were started anew."""
        assert self.apart is not None
        with self.apart.gateway.admin() as http:

            def joined() -> bool:
                if http.get("/api/v1/assets").status_code != 200:
                    return False
                answer = http.get("/api/v1/system/status")
                found = {s["service"]: s["status"] for s in answer.json().get("services", ())}
                # What a service is told to work with may be as bad as a test wants it.
                return found.get("api-gateway") == "ok" and "down" not in found.values()

            wait_for(joined)

    def _films(self) -> set[str]:
        assert self.apart is not None
        found: set[str] = set()
        page: dict[str, Any] = {"next_cursor": ""}
        with self.apart.gateway.admin() as http:
            while page["next_cursor"] is not None:
                after = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
                page = http.get("/api/v1/assets", params={"limit": 100, **after}).json()
                found |= {item["id"] for item in page["items"]}
        return found
