"""A TCP proxy between a client and a server that breaks connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards to a port on loopback. ``cuts``: bytes from the client after which each of the next connections is broken."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.cuts: list[int] = []
        self.broken = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        threading.Thread(target=self._back, args=(server, client), daemon=True).start()
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(16 << 10):
                server.sendall(data)
                sent += len(data)
                if self.cuts and sent >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.broken += 1
                    for end in (client, server):
                        # RST, as when a line goes dead: nothing more is delivered either way.
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.close()
                    return
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(16 << 10):
                client.sendall(data)
        for end in (client, server):
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
