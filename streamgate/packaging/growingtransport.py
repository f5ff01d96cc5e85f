"""An MPEG-TS that still arrives, written out as far as it has come: a copy that goes on where the last one stopped, and its index.

Stricter than what reads a whole file: every picture must be in a PES packet of its own, as all usual muxers have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from streamgate.packaging import annexb
from streamgate.packaging.arriving import Arriving
from streamgate.packaging.cutting import SourceIndex
from streamgate.packaging.mp4boxes import IndexRefused
from streamgate.packaging.transport import AAC_FRAME, Pictures, Shape, Sound, Write, index_gathered, writer
from streamgate.packaging.tspackets import CLOCK, WRAPS, Line, Packets, Piece, jumps

EARLY = 32 << 20
"""Bytes within which every track must have begun."""

MOST = 128 << 20
"""Bytes of the source that are gone through at once."""

_BLOCK = 2 << 20


class _SavedTrack(msgspec.Struct, frozen=True, array_like=True):
    shape: Shape
    counter: int
    begun: bool
    held: bytes
    rest: bytes
    stamp: int | None
    due: int | None
    rows: bytes
    decoded: int | None
    config: bytes | None


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    at: int
    zero: int
    form: tuple[int, int]
    tracks: tuple[_SavedTrack, ...]
    about: bytes


class _Track:
    """A track as it is written out: what its `Line` gives, as samples.

    ``due``: when the next sample is decoded, as far as the file has told; ``rest``: the beginning of a frame of sound of which more
    is to come, and ``stamp``: its time, where the file has told that.
    """

    def __init__(self, shape: Shape, write: Write) -> None:
        self.shape = shape
        self.line = Line()
        self.due: int | None = None
        self.rest = bytearray()
        self.stamp: int | None = None
        self.made = writer(shape, write)

    def saved(self) -> _SavedTrack:
        """Where it stands."""
        line, made = self.line, self.made
        return _SavedTrack(
            shape=self.shape,
            counter=line.counter,
            begun=line.begun,
            held=bytes(line.held),
            rest=bytes(self.rest),
            stamp=self.stamp,
            due=self.due,
            rows=made.rows.saved(),
            decoded=made.rows.decoded,
            config=made.config if isinstance(made, Sound) else None,
        )

    @classmethod
    def resumed(cls, was: _SavedTrack, write: Write) -> _Track:
        """One that goes on from there."""
        track = cls(was.shape, write)
        track.line = Line(was.counter, was.begun, bytearray(was.held))
        track.rest, track.stamp, track.due = bytearray(was.rest), was.stamp, was.due
        track.made.rows.resume(was.rows, was.decoded)
        if isinstance(track.made, Sound):
            track.made.config = was.config
        return track

    def begins(self, piece: Piece, near: int) -> int | None:
        """When a piece is decoded, on a clock that does not begin anew; ``near``: a time not far from it."""
        return None if piece.decoded is None else _unwrapped(piece.decoded, near if self.due is None else self.due)

    def add(self, piece: Piece, zero: int) -> None:
        """Write out one piece; ``zero``: the time that is time 0 of what is written out. Raises `IndexRefused`."""
        decoded = self.begins(piece, zero)
        if isinstance(self.made, Sound):
            self._frames(self.made, piece.data, decoded, zero)
            return
        if decoded is None or piece.shown is None:
            raise jumps()
        try:
            key = annexb.key_picture(piece.data, self.shape.codec)
        except ValueError:
            raise IndexRefused("codec", "Pictures of the film do not have a packet each.") from None
        self.due = decoded
        self.made.add(piece.data, _unwrapped(piece.shown, decoded) - zero, decoded - zero, key=key)

    def _frames(self, sound: Sound, data: bytes, told: int | None, zero: int) -> None:
        """The frames that are whole; the time of a piece is that of the first frame that begins in it."""
        at, before = 0, len(self.rest)
        self.rest += data
        try:
            while length := annexb.frame_length(self.rest, at):
                if at >= before and told is not None:
                    self.stamp, told = told, None
                if at + length > len(self.rest):
                    break
                self._frame(sound, bytes(self.rest[at : at + length]), zero)
                at += length
        except ValueError:
            raise IndexRefused("codec", "The sound is of a kind that is not served as it is.") from None
        if at >= before and told is not None and at < len(self.rest):
            self.stamp = told
        del self.rest[:at]

    def _frame(self, sound: Sound, frame: bytes, zero: int) -> None:
        due = self.due if self.stamp is None else self.stamp
        if due is None:
            raise jumps()
        sound.add(frame, None if self.stamp is None else self.stamp - zero, due - zero, key=True)
        self.due = due + AAC_FRAME * CLOCK // annexb.sampling_rate(frame)
        self.stamp = None


class GrowingCopy:
    """Writes out the tracks of an MPEG-TS. ``write``: as `transport.Write`; it must go on where that of the last one ended.

    Raises `IndexRefused` where it cannot be served so.
    """

    def __init__(self, form: tuple[int, int], shapes: Sequence[Shape], write: Write, about: bytes) -> None:
        self.about = about
        """Whatever whoever began wants to know later."""
        self.at = 0
        """The offset of the next packet."""
        self.zero: int | None = None
        """The file's time that is time 0 of what is written out."""
        self._form = form
        self._tracks = [_Track(shape, write) for shape in shapes]

    @classmethod
    def resumed(cls, saved: bytes, write: Write) -> GrowingCopy:
        """Go on from what `saved` gave. `msgspec.DecodeError` or `ValueError` for what is no such thing."""
        was = msgspec.msgpack.decode(saved, type=_Saved)
        copy = cls(was.form, (), write, was.about)
        copy.at, copy.zero = was.at, was.zero
        copy._tracks = [_Track.resumed(track, write) for track in was.tracks]
        return copy

    def saved(self) -> bytes:
        """Where it stands; empty until every track has begun, and nothing is written out before."""
        if self.zero is None:
            return b""
        tracks = tuple(track.saved() for track in self._tracks)
        return msgspec.msgpack.encode(_Saved(self.at, self.zero, self._form, tracks, self.about))

    def advance(self, read: Arriving) -> bool:
        """Go on through the packets that are there, `MOST` bytes of them at most; whether that was all of them."""
        packets = Packets(self._form, {track.shape.identifier: track.line for track in self._tracks})
        owners = {track.shape.identifier: track for track in self._tracks}
        end = self.at + min(read.arrived - self.at, MOST) // packets.step * packets.step
        early: list[tuple[int, Piece]] = []
        while self.at < end:
            data = read(self.at, min(end - self.at, _BLOCK // packets.step * packets.step))
            if not data or len(data) % packets.step:
                raise IndexRefused("truncated", "The file could not be read to its end; every rendition is encoded.")
            self.at += len(data)
            early += packets.take(data)
            if self.zero is None and not self._all_begin(early, last=self.at >= EARLY):
                continue
            for identifier, piece in early:
                owners[identifier].add(piece, self.zero or 0)
            early = []
        return read.arrived - self.at < packets.step

    def _all_begin(self, early: Sequence[tuple[int, Piece]], *, last: bool) -> bool:
        """Whether every track has begun, and with it time 0: the earliest of their first times."""
        first: dict[int, int] = {}
        for identifier, piece in early:
            if identifier not in first and piece.decoded is not None:
                first[identifier] = piece.decoded
        if len(first) < len(self._tracks):
            if last:
                raise IndexRefused("table_short", "A track of the film begins late.")
            return False
        near = next(iter(first.values()))
        self.zero = min(near + _apart(time, near) for time in first.values())
        return True

    @property
    def shapes(self) -> list[Shape]:
        """What the tracks are."""
        return [track.shape for track in self._tracks]

    def end(self) -> None:
        """No more follows: what is held is whole. A frame of sound that is cut off is left out."""
        for track in self._tracks:
            for piece in track.line.last():
                track.add(piece, self.zero or 0)

    def index(
        self, size: int, segment_s: float, *, near: int | None = None, heard: Mapping[int, Fraction] | None = None
    ) -> SourceIndex | None:
        """The index of the ``size`` bytes that are written out, as far as later pictures cannot change it; None while there is
        nothing to cut. What is saved must have been before.

        ``near``: a time not far from time 0, by the clock that the index's origin is to be told by; then it is of the whole file.
        ``heard``: as in `cutting.index_of`, by a clock that may have begun anew at another time than that one.
        """
        made = [track.made for track in self._tracks]
        if self.zero is None or not all(one.rows.values for one in made):
            return None
        if near is None and not all(one.without_open_group() for one in made if isinstance(one, Pictures)):
            return None
        zero = self.zero if near is None else _unwrapped(self.zero, near)
        # What is a key frame was seen when it was written.
        read = Arriving(lambda _offset, _length: b"", size, [(0, size)], looked_at=size)
        gathered = [(track.shape.number, track.shape.language, track.made) for track in self._tracks]
        begins = Fraction(zero, CLOCK)
        told = {number: _by_the_same_clock(time, begins) for number, time in (heard or {}).items()}
        return index_gathered(read, size, gathered, zero=begins, segment_s=segment_s, heard=told)


def _apart(time: int, near: int) -> int:
    """How much later (or, below 0, earlier) one time is than another, on a clock that begins anew."""
    return (time - near + WRAPS // 2) % WRAPS - WRAPS // 2


def _unwrapped(time: int, near: int) -> int:
    return near + _apart(time, near)


def _by_the_same_clock(time: Fraction, near: Fraction) -> Fraction:
    """The same time, in seconds, as told by a clock that tells ``near``."""
    round_s = Fraction(WRAPS, CLOCK)
    return time + round((near - time) / round_s) * round_s
