"""A TCP proxy between a client and a server that breaks connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator


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
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def cut(self) -> None:
        """Break every connection, and every new one at once, until `mend`."""
        self._refusing = True
        for end in tuple(self._open):
            self._reset(end)

    def stall(self) -> None:
        """Half-open: connections stay, new ones are taken, and nothing gets through until `mend`."""
        self._flowing.clear()

    def mend(self) -> None:
        """Forward as at first; what was held back is delivered now."""
        self._refusing = False
        self.delay_s = 0.0
        self._flowing.set()

    @staticmethod
    def _reset(end: socket.socket) -> None:
        """RST, as when a line goes dead: nothing more is delivered either way."""
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass(self, data: bytes, end: socket.socket) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
        self._flowing.wait()
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
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._open |= {client, server}
        threading.Thread(target=self._back, args=(server, client), daemon=True).start()
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(16 << 10):
                self._pass(data, server)
                sent += len(data)
                if self.cuts and sent >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.broken += 1
                    for end in (client, server):
                        self._reset(end)
                    return
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(16 << 10):
                self._pass(data, client)
        for end in (client, server):
            self._open.discard(end)
            with contextlib.suppress(OSError):
                end.close()


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy before a port."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
