"""The life of one media child: take an order, shut itself in, do it, answer, end.

Runs in a process that the fork server made for one task; nothing it learns or leaks survives it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import traceback
from pathlib import Path

import av.error
from msgspec.structs import replace

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.media import confine, memory, opening
from streamgate.media.encode import encode_chunk
from streamgate.media.growing import look
from streamgate.media.passing import Room
from streamgate.media.plan import make_plan
from streamgate.media.poster import make_poster
from streamgate.media.storyboard import make_sheet
from streamgate.media.wire import (
    TURN,
    Answer,
    Attempted,
    Broken,
    Confinement,
    Encoded,
    EncodeTask,
    GrowTask,
    Looked,
    Order,
    Picture,
    Planned,
    PlanTask,
    PosterTask,
    ProbeTask,
    Refused,
    SheetTask,
    receive,
    send,
)

OUT_OF_MEMORY = "The film needs more memory to decode than one film may use. Re-encode it at a smaller size."

_NO_ROOM_FOR_A_THREAD = "can't start new thread"
"""How Python says that there is no memory for one: nothing else bounds threads here."""


def run(link: socket.socket) -> None:
    """Serve the one order that comes over ``link``; returns when it is answered."""
    order = receive(link, Order)
    if isinstance(order.task, PlanTask | GrowTask):
        memory.reuse()
    confined = shut_in(order.confinement, order.source.path)
    answer = _answer(order, link, confined)
    with TURN:
        send(link, answer)


def shut_in(confinement: Confinement, source: str | None) -> tuple[str, ...]:
    """Confine this process; the names of the protections that hold, as `Sandbox.protections` has them."""
    parent = os.getppid()
    os.nice(confinement.nice)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The namespace first: a process that may not be traced cannot write its own id mapping.
    held = {
        "network_namespace": confine.leave_network(),
        "no_new_privs": confine.forbid_new_privileges(),
        "landlock": confine.shut_filesystem(readable=source, writable=confinement.folder),
        "capabilities": confine.drop_capabilities(),
        "rlimits": confine.limit(confinement.memory, confinement.cpu_s),
    }
    # The kernel may forget the parent-death signal when credentials change.
    confine.die_with_parent(parent)
    return tuple(name for name, holds in held.items() if holds)


def _answer(order: Order, link: socket.socket, confined: tuple[str, ...]) -> Answer:
    try:
        return _do(order, link, confined)
    except MediaRefused as refused:
        return Refused(refused.failure.code.value, refused.failure.detail)
    except MemoryError:
        gc.collect()
        return Refused(FailureCode.TOO_LARGE.value, OUT_OF_MEMORY)
    except opening.SourceLost as lost:
        return Broken(str(lost))
    except av.error.FFmpegError as error:
        code, detail = opening.verdict(error)
        return Refused(code.value, detail)
    except OSError as error:
        return Broken(f"{type(error).__name__}: {error.strerror}")
    except RuntimeError as error:
        if str(error) != _NO_ROOM_FOR_A_THREAD:
            return _defect()
        return Refused(FailureCode.TOO_LARGE.value, OUT_OF_MEMORY)
    except Exception:  # noqa: BLE001  the process ends here: whatever it was must reach the server's log as a value
        return _defect()


def _defect() -> Broken:
    return Broken(traceback.format_exc(limit=-8), defect=True)


def _do(order: Order, link: socket.socket, confined: tuple[str, ...]) -> Answer:
    task = order.task
    if isinstance(task, ProbeTask):
        return Attempted(_try_to_escape(task), confined)
    if isinstance(task, GrowTask):
        arriving = opening.Source(order.source.size, None, link, task.extents)
        return Looked(look(arriving, task, Path(order.confinement.folder or "")))
    source = opening.Source(order.source.size, order.source.path, link)
    if isinstance(task, PlanTask):
        folder = Path(order.confinement.folder) if order.confinement.folder else None
        room = Room(folder, task.remux_s, task.before) if folder else None
        plan = make_plan(source, task.ladder, task.limits, room)
        told = bool(plan.index) and plan.index is source.told
        source.heard_out()
        return Planned(replace(plan, index=b"") if told else plan, indexed=told)
    if isinstance(task, EncodeTask):
        return Encoded(encode_chunk(source, task, Path(order.confinement.folder or "")))
    if isinstance(task, SheetTask):
        return Picture(make_sheet(source, task))
    assert isinstance(task, PosterTask)
    return Picture(make_poster(source, task))


def _try_to_escape(task: ProbeTask) -> tuple[str, ...]:
    escaped: list[str] = []
    attempts = (("read", task.read, "rb"), ("write", task.write, "wb"))
    for name, path, mode in attempts:
        if path is not None:
            try:
                Path(path).open(mode).close()
            except OSError:
                continue
            escaped.append(name)
    if task.connect:
        for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
            with socket.socket(socket.AF_INET, kind) as outside:
                try:
                    outside.connect(("127.0.0.1", 9))
                    outside.send(b"x")
                except ConnectionRefusedError:
                    escaped.append(name)
                except OSError:
                    continue
                else:
                    escaped.append(name)
    hoard = bytearray(task.allocate)
    while task.spin:
        hoard[:1] = b"x"
    if task.crash:
        os.kill(os.getpid(), signal.SIGSEGV)
    return tuple(escaped)
