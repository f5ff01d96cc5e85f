"""An MPEG-TS that is still being uploaded: written out as far as it has come, in the form in which the whole is served."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
import msgspec
from av.container import InputContainer

from streamgate.domain.asset import MediaRefused
from streamgate.media.model import Grown
from streamgate.media.opening import MAX_PIXELS, Source
from streamgate.media.probe import Probe, probe
from streamgate.media.remux import Parts, Remuxed, shapes
from streamgate.media.wire import GrowTask
from streamgate.packaging.arriving import Arriving
from streamgate.packaging.cutting import SourceIndex
from streamgate.packaging.growingtransport import EARLY, MOST, GrowingCopy
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.tspackets import form

_STEP = 256 << 10
"""Bytes after which another look is worth it, at least."""

_COARSE = 512
"""What of a film has arrived, divided by this, is another such: what is written out comes in no more than some thousand objects."""

_LARGEST = 56 << 20
"""Bytes of what is saved and an index together: they cross from child to server in one message."""

_SLOWER = 3
"""Times that writing out the whole at once is faster than going on."""

_TOO_EARLY = frozenset(("table_short", "no_keyframes", "no_config"))
"""Codes of what more bytes may mend."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What is known now. ``index``: of the ``size`` bytes that are written out by now, the last ``lengths`` (bytes of each file)
    by this look; None while there is nothing to cut. ``state``: where that stands, ``at`` in the source. ``wanted``: how far the
    source must have come before there is more. ``most``: whether this was as much as one look goes through."""

    index: SourceIndex | None
    found: Probe | None
    wanted: int
    at: int = 0
    most: bool = False
    size: int = 0
    lengths: tuple[int, ...] = ()
    state: bytes = b""


def goes_on(read: Arriving) -> bool:
    """Whether this is a source of that kind."""
    return form(read) is not None


def copy_on(source: Source, read: Arriving, task: GrowTask, folder: Path) -> Copied:
    """Write out, into ``folder``, what has arrived since the last look.

    Raises `IndexRefused` where nothing more will play before the last byte.
    """
    before = task.before
    parts = Parts(folder, size=before.size)
    try:
        copy = GrowingCopy.resumed(before.state, parts.write) if before.state else _begun(source, read, task, parts)
        start = copy.at
        most = not copy.advance(read)
        parts.close()
        state = copy.saved()
        found = _probed(copy.about)
        index = copy.index(parts.size, task.ladder.segment_s, heard=found.heard())
    except IndexRefused as why:
        if why.code in _TOO_EARLY and not before.count and read.arrived < EARLY:
            return Copied(None, None, _later(read.arrived, 0))
        raise
    except OSError:
        raise IndexRefused("no_room", "There is no room to write the film out before it is whole.") from None
    if index is None:
        return Copied(None, None, _later(read.arrived, start), most=most)
    if len(state) + len(index.blob) > _LARGEST:
        raise IndexRefused("too_many_samples", "The film is too long to play before it is whole.")
    wanted = copy.at if most else _later(read.arrived, copy.at)
    return Copied(index, found, wanted, copy.at, most, parts.size, tuple(parts.lengths), state)


def _later(arrived: int, since: int) -> int:
    """How far a source should have come before it is looked at again; ``since``: what has been gone through of it for good."""
    return arrived + min(max(_STEP, (arrived - since) // 4, arrived // _COARSE), MOST // 4)


def _begun(source: Source, read: Arriving, task: GrowTask, parts: Parts) -> GrowingCopy:
    lies = form(read)
    try:
        found = probe(source, task.limits)
    except MediaRefused as refused:
        raise IndexRefused("table_short", refused.failure.detail) from None
    told = {track.index for track in (found.video, *found.audio) if track is not None}
    if any(track.kind in {"video", "audio"} and track.index not in told for track in found.tracks):
        raise IndexRefused("table_short", "A track of the film begins late.")
    with source.open(MAX_PIXELS) as container:
        tracks = shapes(container, found)
    assert lies is not None, "the source is of that kind"
    return GrowingCopy(lies, tracks, parts.write, msgspec.msgpack.encode(found, enc_hook=_plain))


def finish(
    source: Source, read: Read, found: Probe, before: Grown, room: Path, until: float, segment_s: float
) -> Remuxed | None:
    """Write out what is left of a film that has come whole, behind what looks at it wrote out, and index all of it.

    ``until``: monotonic seconds by which that must be done; ``read``: its bytes. None, and nothing is left behind, where the whole
    file has to be written out: it is another than it seemed, something is wrong with the rest, or that is most of it.
    """
    parts = Parts(room, size=before.size)
    made: Remuxed | None = None
    try:
        copy = GrowingCopy.resumed(before.state, parts.write)
        with source.open(MAX_PIXELS) as container:
            same = shapes(container, found) == copy.shapes and (source.size - copy.at) * _SLOWER < source.size
            near = _begins(container, found) if same else None
        whole = Arriving(read, source.size, [(0, source.size)])
        while near is not None and time.monotonic() < until:
            if copy.advance(whole):
                copy.end()
                parts.close()
                index = copy.index(parts.size, segment_s, near=near, heard=found.heard())
                made = Remuxed(index, tuple(parts.lengths), before.size) if index is not None else None
                break
    except (IndexRefused, OSError, MemoryError, ValueError, av.error.FFmpegError):
        made = None
    if made is None:
        parts.forget()
    return made


def _begins(container: InputContainer, found: Probe) -> int | None:
    """The time of the first packet that is played, as whoever encodes the film is told it."""
    played = [container.streams[track.index] for track in (found.video, *found.audio) if track is not None]
    return next((packet.dts for packet in container.demux(*played) if packet.dts is not None), None)


def _probed(about: bytes) -> Probe:
    return msgspec.msgpack.decode(about, type=Probe, dec_hook=_fraction)


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return value.numerator, value.denominator
    raise NotImplementedError(type(value).__name__)


def _fraction(kind: type, value: Any) -> Any:
    if kind is Fraction:
        return Fraction(*value)
    raise NotImplementedError(kind.__name__)
