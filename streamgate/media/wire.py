"""What passes between the server, its fork server and the media children: length-prefixed msgpack, typed both ways.

A child's answer is hostile input (its bytes come out of a process that parsed a stranger's file): the server decodes
it into exactly these types, refuses frames above `MAX_FRAME`, and believes nothing else.
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import TypeVar

import msgspec

from streamgate.contracts.transcoder import Storyboard
from streamgate.media.model import EncodedChunk, Grown, LadderSettings, Limits, MediaPlan, PlannedRendition
from streamgate.packaging.segments import SegmentLayout

MAX_FRAME = 64 << 20
"""No message is longer (a plan of a twelve-hour film is under 4 MB)."""

MAX_RANGE = 4 << 20
"""The longest byte range that a child asks for at once."""

MAX_RANGES = 32 << 20
MANY_RANGES = 256
"""Bytes of all the ranges, and how many of them, that a child asks for at once."""

_LENGTH = struct.Struct("!I")
_SENDING = threading.Lock()

TURN = threading.Lock()
"""Held by a thread of a child from its question until it is answered; what the child says last waits until nobody asks."""

_ENCODER = msgspec.msgpack.Encoder()

REPORT = struct.Struct("!cQi")
"""What the fork server says of a child: `STARTED` (with its process handle) or `ENDED`, its number, and its pid or exit status."""

START = struct.Struct("!Q")
"""What the fork server is asked for: a child by this number, with one end of a socket pair."""

READY, STARTED, ENDED = b"ready", b"s", b"e"


class SourceLocation(msgspec.Struct, frozen=True, tag=True):
    """Where a child finds its source: a local file by path, or None for byte ranges asked over the socket."""

    size: int
    path: str | None


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """How tightly a child binds itself. ``memory`` bytes of address space, ``cpu_s`` seconds of processor time."""

    memory: int
    cpu_s: int
    nice: int = 0
    folder: str | None = None


class PlanTask(msgspec.Struct, frozen=True, tag=True):
    """Probe the source and plan it. ``remux_s``: seconds that writing it out into the folder of the confinement may take;
    ``before``: what the last look at it came to, where it was written out while it arrived."""

    ladder: LadderSettings
    limits: Limits
    remux_s: float = 0.0
    before: Grown | None = None


class EncodeTask(msgspec.Struct, frozen=True, tag=True):
    """Encode segments ``first`` to ``end`` (exclusive) of these renditions into the folder of the confinement.

    ``pieces``: segments of the source's video that hold all pictures of them; none: the source itself is opened.
    """

    recipe: bytes
    renditions: tuple[PlannedRendition, ...]
    first: int
    end: int
    pieces: tuple[SegmentLayout, ...] = ()


class PosterTask(msgspec.Struct, frozen=True, tag=True):
    """One picture of the film, at ``at_s`` or where it fits."""

    recipe: bytes
    at_s: float | None
    width: int
    duration: float


class SheetTask(msgspec.Struct, frozen=True, tag=True):
    """One sheet of the storyboard."""

    recipe: bytes
    plan: Storyboard
    number: int


class ProbeTask(msgspec.Struct, frozen=True, tag=True):
    """Try to leave the cage: read a file, write a file, open sockets, use memory or time. Shows what confinement holds."""

    read: str | None = None
    write: str | None = None
    connect: bool = False
    allocate: int = 0
    spin: bool = False
    crash: bool = False


class GrowTask(msgspec.Struct, frozen=True, tag=True):
    """Look at a source that still arrives: what of it can be played now? ``extents``: what is there of it, as (begin, end).

    ``before``: what the last look at it came to, without its plan. What is written out goes into the folder of the confinement.
    """

    ladder: LadderSettings
    limits: Limits
    extents: tuple[tuple[int, int], ...]
    before: Grown


Task = PlanTask | EncodeTask | PosterTask | SheetTask | ProbeTask | GrowTask


class Order(msgspec.Struct, frozen=True):
    """The first message to a child: what to do, on what, and how to confine itself before."""

    task: Task
    source: SourceLocation
    confinement: Confinement


class Want(msgspec.Struct, frozen=True, tag=True):
    """A child asks for bytes of its source."""

    offset: int
    length: int


class Given(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Want`; ``data`` None when the source could not be read."""

    data: bytes | None


class WantAll(msgspec.Struct, frozen=True, tag=True):
    """A child asks for several ranges of its source, (offset, length) each, together no longer than `MAX_RANGES`."""

    ranges: tuple[tuple[int, int], ...]


class GivenAll(msgspec.Struct, frozen=True, tag=True):
    """The answer to `WantAll`, in order; ``data`` None when one of them could not be read."""

    data: tuple[memoryview, ...] | None


class Indexed(msgspec.Struct, frozen=True, tag=True):
    """A sample index, told before the plan that it is probably of; nothing is answered to it, and it comes once at most."""

    index: bytes


class Planned(msgspec.Struct, frozen=True, tag=True):
    """A finished plan. ``indexed``: its index is the one that was told before, and not sent again."""

    plan: MediaPlan
    indexed: bool = False


class Encoded(msgspec.Struct, frozen=True, tag=True):
    """A finished chunk."""

    chunk: EncodedChunk


class Picture(msgspec.Struct, frozen=True, tag=True):
    """A finished JPEG; empty when the film has none to show."""

    jpeg: bytes


class Looked(msgspec.Struct, frozen=True, tag=True):
    """What a look at an arriving source came to."""

    grown: Grown


class Attempted(msgspec.Struct, frozen=True, tag=True):
    """What a `ProbeTask` could do although it should not."""

    escaped: tuple[str, ...]
    confined: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The film is the reason: a code of the closed list (checked by the receiver) and a sentence."""

    code: str
    detail: str


class Broken(msgspec.Struct, frozen=True, tag=True):
    """Something other than the film is the reason; ``detail`` is for the log.

    ``defect``: the product is wrong, and trying again would not help; else the disk is full or the source unreadable.
    """

    detail: str
    defect: bool = False


Answer = Want | WantAll | Indexed | Planned | Looked | Encoded | Picture | Attempted | Refused | Broken

T = TypeVar("T")


def pack(message: msgspec.Struct) -> bytearray:
    """The message with its length before it."""
    frame = bytearray(_LENGTH.size)
    _ENCODER.encode_into(message, frame, _LENGTH.size)
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return frame


def frame_length(header: bytes | bytearray) -> int:
    """The length that a four-byte header announces; `ValueError` above `MAX_FRAME`."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes is longer than allowed")
    return int(length)


def send(link: socket.socket, message: msgspec.Struct) -> None:
    """Send one message, blocking; whole, whatever other threads send."""
    data = pack(message)
    with _SENDING:
        link.sendall(data)


def receive(link: socket.socket, kind: type[T]) -> T:
    """Receive one message of a type, blocking; `EOFError` when the other side is gone."""
    return msgspec.msgpack.decode(_exactly(link, frame_length(_exactly(link, _LENGTH.size))), type=kind)


def _exactly(link: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = link.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data
