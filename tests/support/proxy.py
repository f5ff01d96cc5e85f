"""A TCP proxy between a client and a server that breaks connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(eq=False)
class _Line:
    """A connection: its two ends (``server`` None: it was taken, and leads nowhere), and whether it is ``lost``."""

    client: socket.socket
    server: socket.socket | None
    lost: bool = False


class Proxy:
    """Forwards to a port on loopback. ``cuts``: bytes from the client after which each of the next connections is broken.

    ``delay_s``: how long every piece of data is held in either direction.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.cuts: list[int] = []
        self.broken = 0
        self.delay_s = 0.0
        self._refusing = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._losing = False
        self._lines: set[_Line] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, target: int) -> None:
        """New connections go to another port from now on."""
        self._target = target

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def cut(self) -> None:
        """Break every connection, and every new one at once, until `mend`."""
        self._refusing = True
        for line in tuple(self._lines):
            for end in (line.client, line.server):
                self._reset(end)

    def stall(self) -> None:
        """Half-open: connections stay, new ones are taken, and nothing gets through until `mend`."""
        self._flowing.clear()

    def lose(self) -> None:
        """Half-open, as when a firewall forgets: who is connected never hears anything again, nor that it is so, and whoever
        connects until `mend` is taken and never answered. The server is told at `mend`, as its own keepalive would do."""
        self._losing = True
        for line in tuple(self._lines):
            line.lost = True

    def mend(self) -> None:
        """Forward as at first; what was held back is delivered now, what was lost stays lost."""
        self._refusing = self._losing = False
        self.delay_s = 0.0
        self._flowing.set()
        for line in tuple(self._lines):
            if line.lost:
                self._reset(line.server)

    @staticmethod
    def _reset(end: socket.socket | None) -> None:
        """RST, as when a line goes dead: nothing more is delivered either way."""
        if end is None:
            return
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass(self, data: bytes, line: _Line, end: socket.socket) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
        self._flowing.wait()
        if not line.lost:
            end.sendall(data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._refusing:
                    self._reset(client)
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._losing:
            self._swallow(_Line(client, None, lost=True))
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        line = _Line(client, server, lost=self._losing)
        self._lines.add(line)
        threading.Thread(target=self._back, args=(line, server), daemon=True).start()
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(16 << 10):
                self._pass(data, line, server)
                sent += len(data)
                if self.cuts and sent >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.broken += 1
                    for end in (client, server):
                        self._reset(end)
                    return
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        if line.lost:
            client.close()

    def _swallow(self, line: _Line) -> None:
        """Take what comes, and answer nothing, until the client gives up."""
        self._lines.add(line)
        with contextlib.suppress(OSError):
            while line.client.recv(16 << 10):
                pass
        self._lines.discard(line)
        line.client.close()

    def _back(self, line: _Line, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(16 << 10):
                self._pass(data, line, line.client)
        self._lines.discard(line)
        with contextlib.suppress(OSError):
            server.close()
        if not line.lost:
            # Closing alone would tell the client nothing for as long as another thread reads from it.
            with contextlib.suppress(OSError):
                line.client.shutdown(socket.SHUT_RDWR)
            line.client.close()


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy before a port."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
