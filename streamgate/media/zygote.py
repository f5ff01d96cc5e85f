"""The fork server of the sandbox: ``python -m streamgate.media.zygote CONTROL_FD PARENT_PID``.

It loads the media library once, holds no secrets and opens no film. For every message on its control socket that
carries one end of a socket pair it forks a child which serves that socket, and sends back the child's process handle
(pidfd). It reports every child's end. It ends when the control socket closes or its parent dies, and its children
with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pkgutil
import select
import signal
import socket
import sys
from importlib import import_module

import av

from streamgate.media import child as media_child
from streamgate.media import confine, quiet
from streamgate.media.wire import ENDED, READY, REPORT, START, STARTED


class ForkServer:
    """The loop of the zygote: single-threaded, so that forking it is safe."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._running: dict[int, tuple[int, int]] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Fork on request until the control socket closes."""
        self._control.send(READY)
        while True:
            for handle, _ in self._poll.poll():
                if handle == self._control.fileno():
                    if not self._start():
                        return
                else:
                    self._reap(handle)

    def _start(self) -> bool:
        try:
            message, handles, _, _ = socket.recv_fds(self._control, START.size, 1)
        except ConnectionResetError:  # the server ended with words of ours unread
            return False
        if not message:
            return False
        (number,) = START.unpack(message)
        bound, binding = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(bound)
            self._become_child(handles[0], binding)
        os.close(handles[0])
        # Whoever hears of a child may stop it at once; one that was stopped before it is bound to us would outlive us.
        os.close(binding)
        os.read(bound, 1)
        os.close(bound)
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = (pid, number)
        self._poll.register(pidfd, select.POLLIN)
        socket.send_fds(self._control, [REPORT.pack(STARTED, number, pid)], [pidfd])
        return True

    def _become_child(self, link: int, binding: int) -> None:
        """Never returns. ``binding`` is closed once the child dies when this process does."""
        status = 70
        try:
            confine.die_with_parent(self._pid)
            os.close(binding)
            confine.close_inherited({link})
            with socket.socket(fileno=link) as channel:
                media_child.run(channel)
            status = 0
        except (EOFError, BrokenPipeError, ConnectionResetError):
            status = 71
        finally:
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        pid, number = self._running.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        self._control.send(REPORT.pack(ENDED, number, os.waitstatus_to_exitcode(status)))


def preload() -> None:
    """Load the whole media library: a child that has shut itself in can read no module any more."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def main(control: int, parent: int) -> None:
    """Become the fork server."""
    confine.die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A Ctrl-C reaches the whole process group; when to end is the server's decision.
        signal.signal(number, signal.SIG_IGN)
    preload()
    quiet.silence()
    with contextlib.suppress(BrokenPipeError), socket.socket(fileno=control) as channel:
        gc.freeze()
        ForkServer(channel).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
