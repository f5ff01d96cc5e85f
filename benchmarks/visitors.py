"""Many small requests at a fixed pace, from plain sockets: what each waits, counted from when it was due."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field


@dataclass
class Waits:
    """Seconds that answers took, and what was answered with anything but 200."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else 0.0


async def visit(port: int, paths: list[str], waits: Waits, *, every_s: float, until: float, start: float) -> None:
    """One viewer on one connection: a request each ``every_s`` from ``start`` until ``until`` (loop time)."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due, number = start, random.randrange(len(paths))
    try:
        while due < until:
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(f"GET {paths[number % len(paths)]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            waits.seconds.append(loop.time() - due)
            if not head.startswith(b"HTTP/1.1 200"):
                waits.errors.append(head[:60].decode())
            due, number = due + every_s, number + 1
    except (OSError, asyncio.IncompleteReadError) as error:
        waits.errors.append(type(error).__name__)
    finally:
        writer.close()
