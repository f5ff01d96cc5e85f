"""The server's side of the fork server: starts it, has children made by it, and holds their process handles."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from streamgate.domain.errors import Unavailable
from streamgate.media.wire import REPORT, START, STARTED, Answer, frame_length, pack

_READY_S = 20.0
_START_S = 10.0
_MESSAGE = 64
_HEADER = 4
_ROOT = Path(__file__).resolve().parents[2]
_BEGIN = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('streamgate.media.zygote', run_name='__main__')"


class Child:
    """One media child: its process handle and the socket to it."""

    def __init__(self, pidfd: int, link: socket.socket) -> None:
        self._pidfd = pidfd
        self._link = link

    async def send(self, message: msgspec.Struct) -> None:
        """Send one message; `OSError` when the child is gone."""
        await asyncio.get_running_loop().sock_sendall(self._link, pack(message))

    async def receive(self) -> Answer:
        """The child's next message; `EOFError` when it is gone, `ValueError` when it is none of those expected."""
        body = await self._exactly(frame_length(await self._exactly(_HEADER)))
        try:
            answer: Answer = msgspec.msgpack.decode(body, type=Answer)
        except msgspec.DecodeError as error:
            raise ValueError("not an answer") from error
        return answer

    async def _exactly(self, length: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                count = await loop.sock_recv_into(self._link, view)
            except ConnectionResetError:
                count = 0
            if not count:
                raise EOFError
            view = view[count:]
        return data

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def end(self) -> None:
        """Kill it and wait until it is dead. Nobody may be waiting for a message any more."""
        self.signal(signal.SIGKILL)
        self._link.close()
        try:
            await _readable(self._pidfd)
        finally:
            os.close(self._pidfd)


async def _readable(handle: int) -> None:
    """Wait for a process handle to say that its process has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)


class Nursery:
    """Has children made. A fork server that died is started again by the next `child`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._number = 0
        self._expected: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._starting = asyncio.Lock()
        self._closed = False

    async def child(self) -> tuple[Child, asyncio.Future[int]]:
        """A fresh child, and its exit status to be (negative: the signal that killed it).

        `Unavailable` when the fork server cannot be started or does not answer.
        """
        control = await self._server()
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        started: asyncio.Future[int] = loop.create_future()
        status: asyncio.Future[int] = loop.create_future()
        self._expected[number], self._ended[number] = started, status
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                socket.send_fds(control, [START.pack(number)], [theirs.fileno()])
            pidfd = await asyncio.wait_for(started, _START_S)
        except BaseException as error:
            ours.close()
            self._ended.pop(number, None)
            if isinstance(error, (OSError, TimeoutError)):
                raise Unavailable("The media sandbox does not answer.", retry_after=1.0) from error
            raise
        finally:
            self._expected.pop(number, None)
        return Child(pidfd, ours), status

    async def close(self) -> None:
        """End the fork server and with it every child."""
        self._closed = True
        self._lose()

    async def _server(self) -> socket.socket:
        async with self._starting:
            if self._closed:
                raise Unavailable("The server is stopping.")
            if self._process is not None and self._process.poll() is not None:
                self._lose()
            if self._control is None:
                self._control = await self._launch()
            return self._control

    async def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._process = _spawn(theirs)
        try:
            greeting = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, _MESSAGE), _READY_S)
        except (OSError, TimeoutError) as error:
            greeting = b""
            cause: BaseException | None = error
        else:
            cause = None
        if not greeting:
            ours.close()
            self._process.kill()
            self._process.wait()
            self._process = None
            raise Unavailable("The media sandbox cannot be started.") from cause
        asyncio.get_running_loop().add_reader(ours, self._hear, ours)
        return ours

    def _hear(self, control: socket.socket) -> None:
        try:
            message, handles, _, _ = socket.recv_fds(control, _MESSAGE, 1)
        except BlockingIOError:
            return
        except OSError:
            message, handles = b"", []
        if not message:
            self._lose()
            return
        kind, number, value = REPORT.unpack(message)
        if kind == STARTED:
            started = self._expected.get(number)
            if started is not None and not started.done() and handles:
                started.set_result(handles[0])
            else:
                for handle in handles:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                    os.close(handle)
            return
        status = self._ended.pop(number, None)
        if status is not None and not status.done():
            status.set_result(value)

    def _lose(self) -> None:
        """The fork server is gone, or is made to go; its children die with it (the kernel sees to that)."""
        if self._control is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for waiting in (*self._expected.values(), *self._ended.values()):
            if not waiting.done():
                waiting.cancel()
        self._ended.clear()


def _spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the fork server with an empty environment.

    Called in the thread of the event loop, which lives as long as the server: the kernel ends the fork server when
    the thread that started it ends.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _BEGIN, str(_ROOT), str(control.fileno()), str(os.getpid())],
        env={},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(control.fileno(),),
    )
