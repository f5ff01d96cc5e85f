"""Where the frames of a Matroska or WebM file lie (RFC 9559), found by stepping from header to header while the file arrives.

Nothing of the media is looked at but the first two bytes of a frame. Cues and the seek head are not needed and not believed.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from streamgate.packaging import ebml
from streamgate.packaging.ebml import damaged
from streamgate.packaging.lacing import laced
from streamgate.packaging.matroskatracks import Entry, read_tracks
from streamgate.packaging.mp4boxes import IndexRefused, Read
from streamgate.packaging.sampletables import MAX_DURATION_S, MAX_SAMPLES, Numbers

NOT_STATED = -(1 << 62)
"""The time of a frame that shares its block with others and is not the first."""

MAX_OTHERS = 1 << 20
"""Most elements that hold no frame of a track: clusters, their times, padding, subtitles."""

FAR_STEP = 4 << 20
"""Bytes of one read where each is a round trip."""

_MAX_HEAD = 8 << 20
"""Largest element in bytes that is read as a whole: what the tracks say of themselves."""

_NEAR_STEPS = (4 << 10, 64 << 10)
_AHEAD = 32
"""Bytes that the header of a block, with that of what holds it, never exceeds."""

_EBML, _SEGMENT, _CLUSTER, _INFO, _TRACKS = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1549A966, 0x1654AE6B
_TIMESTAMP, _SIMPLE_BLOCK, _GROUP, _BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
_BLOCK_DURATION, _REFERENCE, _DISCARD = 0x9B, 0xFB, 0x75A2
_DOC_TYPE, _READ_VERSION, _MAX_ID_LENGTH, _MAX_SIZE_LENGTH = 0x4282, 0x42F7, 0x42F2, 0x42F3
_TIMESTAMP_SCALE = 0x2AD7B1
_USUAL_SCALE = 1_000_000
_KEY, _LACING = 0x80, 0x06
_TOP_LEVEL = 1 << 28
"""Identifiers of four bytes, as those of everything that may follow a cluster."""


@dataclass(slots=True)
class Frames:
    """The frames of a track so far, in file order.

    ``rows``: offset, size, time in ticks (`NOT_STATED` inside a lace), and a mark (bit 7: key frame; bits 8 to 23: the first two
    bytes). What the last block says: its ``duration`` in ticks, and how many nanoseconds of ``padding`` at its end are not heard.
    """

    rows: array[int] = field(default_factory=lambda: array("q"))
    duration: int | None = None
    padding: int = 0

    def table(self) -> Numbers:
        """The rows as an array of shape (frames, 4); a copy, so that more may come."""
        return np.array(self.rows, np.int64).reshape(-1, 4)


class Scan:
    """One pass over a file, as far as it is there; it goes on where it stood. Raises `IndexRefused` for what cannot be.

    ``read``: as `mp4boxes.Read`, asked for nothing beyond what `advance` was told of. ``far``: each read is a round trip.
    """

    def __init__(self, read: Read, *, far: bool = False) -> None:
        self.tracks: tuple[Entry, ...] | None = None
        """The tracks, once the file has named them."""
        self.scale = _USUAL_SCALE
        """Nanoseconds of a tick."""
        self.frames: dict[int, Frames] = {}
        """What was found of the tracks of pictures and sound, by track number."""
        self.at = 0
        """The offset of the next element: all before it is known, and nothing at or behind it."""
        self.ended = False
        """Whether the file has no more."""
        self.cut_off = False
        """Whether the file ended in the middle of something."""
        self._read = read
        self._step, self._largest_step = (FAR_STEP, FAR_STEP) if far else _NEAR_STEPS
        self._smallest_step = self._step
        self._available, self._base, self._end, self._buffer = 0, 0, 0, b""
        self._headed = False
        self._segment: int | None = None  # where it ends; None: not known, or before it
        self._opened = False
        self._cluster: int | None = None
        self._inside = False
        self._time: int | None = None
        self._sinks: dict[int, Callable[[tuple[int, int, int, int]], None]] = {}
        self._others = 0

    def head(self, available: int) -> bool:
        """Go on until the tracks are known; whether they are."""
        self._forget(available)
        while self.tracks is None and not self.ended and self._one(available):
            pass
        return self.tracks is not None

    def advance(self, available: int, *, last: bool = False) -> None:
        """Go on through the first ``available`` bytes of the file; ``last``: there are no more.

        A block of which a part is missing waits for the rest of it, or is left out when it is the ``last``.
        """
        self._forget(available)
        while not self.ended and self._one(available):
            pass
        if last and not self.ended:
            whole = self._opened and self.at == available and self._segment is None
            self.cut_off = not whole or (self._inside and self._cluster is not None)
            self.ended = True

    def _forget(self, available: int) -> None:
        """What was read ends where the file did then."""
        if available != self._available:
            self._available, self._base, self._end, self._buffer = available, 0, 0, b""

    def _one(self, available: int) -> bool:
        """One step; False where more of the file is needed."""
        if self._inside:
            return self._blocks(available)
        if self._segment is not None and self.at >= self._segment:
            if self.at > self._segment:
                raise damaged("an element is longer than what holds it")
            self.ended = True
            return True
        found = self._peek(available)
        if found is None:
            return False
        self._other_one()
        return self._within_segment(*found, available) if self._opened else self._before_segment(*found, available)

    def _before_segment(self, identifier: int, size: int | None, start: int, available: int) -> bool:
        if identifier == _SEGMENT and self._headed:
            self._opened = True
            self._segment = None if size is None else start + size
            self.at = start
            return True
        if identifier != _EBML or size is None or size > 4096 or self._headed:
            raise damaged("it does not begin as such files do")
        if start + size > available:
            return False
        _check_header(memoryview(self._bytes(start, size)))
        self._headed = True
        self.at = start + size
        return True

    def _within_segment(self, identifier: int, size: int | None, start: int, available: int) -> bool:
        if identifier == _CLUSTER:
            if self.tracks is None:
                raise IndexRefused("no_tracks", "The file has pictures and sound before it says what they are.")
            self._inside, self._time = True, None
            self._cluster = None if size is None else start + size
            if self._cluster is not None and self._segment is not None and self._cluster > self._segment:
                raise damaged("a cluster is longer than what holds it")
            self.at = start
            return True
        if size is None or identifier in {_EBML, _SEGMENT}:
            raise damaged("several films in one, or an element without an end")
        if identifier in {_INFO, _TRACKS}:
            if size > _MAX_HEAD:
                raise damaged("what the tracks say of themselves is too long")
            if start + size > available:
                return False
            content = memoryview(self._bytes(start, size))
            if identifier == _INFO:
                self._told(content)
            elif self.tracks is None:
                self._named(content)
        self.at = start + size
        return True

    def _told(self, content: memoryview) -> None:
        for element in ebml.elements(content):
            if element.identifier == _TIMESTAMP_SCALE:
                if any(frames.rows for frames in self.frames.values()):
                    raise damaged("its clock is set too late")
                self.scale = element.unsigned()
        if not 1 <= self.scale <= 10**9:
            raise damaged("its clock")

    def _named(self, content: memoryview) -> None:
        self.tracks = read_tracks(content)
        nothing = deque[int](maxlen=0)
        for track in self.tracks:
            if track.number < 0x7F:
                self._sinks[0x80 | track.number] = nothing.extend
            if track.kind in {"video", "audio"}:
                self.frames[track.number] = frames = Frames()
                if track.number < 0x7F:
                    self._sinks[0x80 | track.number] = frames.rows.extend

    def _blocks(self, available: int) -> bool:
        """Blocks that lie one behind the other in a cluster; this is where the time goes."""
        limit = available if self._cluster is None else min(available, self._cluster)
        index = self._window(available) if self.at < limit else None
        if index is not None and self._time is not None:
            buffer, base, time, sinks = self._buffer, self._base, self._time, self._sinks
            most, known = limit - base, len(buffer) - _AHEAD
            while index <= known and buffer[index] == _SIMPLE_BLOCK:
                first = buffer[index + 1]
                if 0x80 <= first < 0xFF:
                    size, start = first & 0x7F, index + 2
                elif 0x40 <= first < 0x7F:
                    size, start = (first & 0x3F) << 8 | buffer[index + 2], index + 3
                elif 0x20 <= first < 0x3F:
                    size, start = (first & 0x1F) << 16 | buffer[index + 2] << 8 | buffer[index + 3], index + 4
                else:
                    size, start = int.from_bytes(buffer[index + 2 : index + 5], "big"), index + 5
                    if first != 0x10 or not size:
                        break
                end = start + size
                sink = sinks.get(buffer[start])
                mark = int.from_bytes(buffer[start + 3 : start + 6], "little")
                if end > most or sink is None or mark & _LACING or size < 5:
                    break
                late = buffer[start + 1] << 8 | buffer[start + 2]
                sink((base + start + 4, size - 4, time + late - (late >> 15 << 16), mark))
                index = end
            if self.at != base + index:
                self.at = base + index
                return True
        return self._other(available)

    def _other(self, available: int) -> bool:
        """One element in a cluster that is no plain block, or the end of the cluster."""
        if self._cluster is not None and self.at >= self._cluster:
            if self.at > self._cluster:
                raise damaged("an element is longer than what holds it")
            self._inside = False
            return True
        found = self._peek(available)
        if found is None:
            return False
        identifier, size, start = found
        if self._cluster is None and identifier >= _TOP_LEVEL:
            self._inside = False
            return True
        if size is None or (self._cluster is not None and start + size > self._cluster):
            raise damaged("an element is longer than what holds it")
        if identifier in {_TIMESTAMP, _SIMPLE_BLOCK, _GROUP} and start + size > available:
            return False
        found_frames = False
        if identifier == _TIMESTAMP:
            self._clock(start, size)
        elif identifier == _SIMPLE_BLOCK:
            found_frames = self._block(start, size, None) is not None
        elif identifier == _GROUP:
            found_frames = self._group(start, start + size)
        if not found_frames:
            self._other_one()
        self.at = start + size
        return True

    def _other_one(self) -> None:
        self._others += 1
        if self._others > MAX_OTHERS:
            raise damaged("too many elements")

    def _clock(self, start: int, size: int) -> None:
        self._time = ebml.Element(_TIMESTAMP, memoryview(self._bytes(start, min(size, 9)))).unsigned()
        if self._time * self.scale > MAX_DURATION_S * 10**9:
            raise IndexRefused("too_long", "The film says that it is longer than two days; every rendition is encoded.")

    def _group(self, start: int, end: int) -> bool:
        """A block with what is said of it (section 5.1.3.5); whether it counts."""
        block: tuple[int, int] | None = None
        duration, padding, key = None, 0, True
        while start < end:
            head = self._bytes(start, min(_AHEAD, end - start))
            identifier, length = ebml.identifier(head, 0)
            size, more = ebml.size(head, length)
            start += length + more
            if size is None or start + size > end:
                raise damaged("an element is longer than what holds it")
            if identifier == _BLOCK:
                block = start, size
            elif identifier == _REFERENCE:
                key = False
            elif identifier in {_BLOCK_DURATION, _DISCARD}:
                if size > 8:
                    raise damaged("a number is too long")
                value = int.from_bytes(self._bytes(start, size), "big", signed=identifier == _DISCARD)
                if identifier == _BLOCK_DURATION:
                    duration = value
                else:
                    padding = value
            start += size
        frames = self._block(*block, key) if block is not None else None
        if frames is not None:
            frames.duration, frames.padding = duration, max(0, padding)
        return frames is not None

    def _block(self, start: int, size: int, key: bool | None) -> Frames | None:
        """Note a block; ``key`` where the block itself does not say. The frames of its track, None for one that does not count."""
        head = self._bytes(start, min(_AHEAD, size))
        number, length = ebml.size(head, 0)
        if size < length + 3 or self._time is None:
            raise damaged("a block is too short, or comes before the time")
        frames = self.frames.get(number or 0)
        if frames is None:
            return None
        late = int.from_bytes(head[length : length + 2], "big", signed=True)
        flags = head[length + 2]
        if key is not None:
            flags = flags & ~_KEY | (_KEY if key else 0)
        begin, rest = start + length + 3, size - length - 3
        if flags & _LACING:
            at, sizes = laced(self._bytes, begin, rest, flags & _LACING)
        else:
            at, sizes = begin, [rest]
        time = self._time + late
        for held in sizes if rest else ():
            mark = flags & ~_LACING | int.from_bytes(self._bytes(at, min(2, held)), "little") << 8
            frames.rows.extend((at, held, time, mark))
            at, time = at + held, NOT_STATED
        frames.duration, frames.padding = None, 0
        self._count()
        return frames

    def _count(self) -> None:
        if sum(len(frames.rows) for frames in self.frames.values()) > 4 * MAX_SAMPLES:
            raise IndexRefused("too_many_samples", "The film has too many samples to be served as it is.")

    def _peek(self, available: int) -> tuple[int, int | None, int] | None:
        """The element that is next: identifier, size, where its content begins. None while its header is not there."""
        index = self._window(available)
        if index is None:
            return None
        identifier, length = ebml.identifier(self._buffer, index)
        if self.at + length >= available:
            return None
        size, more = ebml.size(self._buffer, index + length)
        start = self.at + length + more
        return None if start > available else (identifier, size, start)

    def _window(self, available: int) -> int | None:
        """Where the next element lies in what was read, with `_AHEAD` bytes behind it; None when none of it is there.

        Where the file ends zeros follow: whoever meets them has gone past ``available``.
        """
        if self.at >= available:
            return None
        if not self._base <= self.at or self.at + _AHEAD > self._end + (_AHEAD if self._end == available else 0):
            self._count()
            skipped = self.at - self._end
            self._step = max(self._smallest_step, self._step >> 1) if skipped > self._step else self._step << 1
            self._step = min(self._step, self._largest_step)
            self._base = self.at
            self._end = min(self.at + max(self._step, _AHEAD), available)
            self._buffer = self._exactly(self._base, self._end - self._base)
            if self._end == available:
                self._buffer += bytes(_AHEAD)
        return self.at - self._base

    def _bytes(self, offset: int, length: int) -> bytes:
        """Some bytes of what is there."""
        if self._base <= offset and offset + length <= self._end:
            return self._buffer[offset - self._base : offset - self._base + length]
        return self._exactly(offset, length)

    def _exactly(self, offset: int, length: int) -> bytes:
        data = self._read(offset, length)
        if len(data) != length:
            raise IndexRefused("truncated", "The file could not be read to its end; every rendition is encoded.")
        return data


def _check_header(content: memoryview) -> None:
    """The EBML header (RFC 8794, section 11.2; RFC 9559, section 4.5): what a reader of this kind can read."""
    said = {element.identifier: element for element in ebml.elements(content)}
    kind = said[_DOC_TYPE].text() if _DOC_TYPE in said else ""
    longest = [
        said[name].unsigned() if name in said else usual for name, usual in ((_MAX_ID_LENGTH, 4), (_MAX_SIZE_LENGTH, 8))
    ]
    versions = said[_READ_VERSION].unsigned() if _READ_VERSION in said else 1
    if kind not in {"matroska", "webm"} or versions != 1 or longest[0] > 4 or longest[1] > 8:
        raise IndexRefused("codec", "The file is of a kind that is not served as it is.")
