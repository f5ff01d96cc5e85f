"""A scan of a Matroska or WebM file that is put away and taken up again, by another process and when more of the file is there."""

from __future__ import annotations

import msgspec

from streamgate.packaging.matroska import Scan
from streamgate.packaging.mp4boxes import Read

_BEGINNING = 64 << 10
"""Bytes within which the tracks are usually named; they are read each time."""


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """Where a scan stands: the fields of `Scan`, and of each track its rows, duration and padding."""

    at: int
    segment: int | None
    cluster: int | None
    inside: bool
    time: int | None
    others: int
    scale: int
    tracks: dict[int, tuple[bytes, int | None, int]]


class LastingScan(Scan):
    """A scan that can be put away and taken up again by another process, which need not be trusted with more than its own film."""

    def headed(self, available: int) -> bool:
        """As `head`, with a short read first."""
        return self.head(min(_BEGINNING, available)) or self.head(available)

    def saved(self) -> bytes:
        """Where it stands."""
        tracks = {n: (f.rows.tobytes(), f.duration, f.padding) for n, f in self.frames.items()}
        return msgspec.msgpack.encode(
            _Saved(self.at, self._segment, self._cluster, self._inside, self._time, self._others, self.scale, tracks)
        )

    def resume(self, saved: bytes) -> None:
        """Go on from there; the tracks must have been named (`head`). `msgspec.DecodeError` for what is no such thing."""
        was = msgspec.msgpack.decode(saved, type=_Saved)
        self.at, self._segment, self._cluster = was.at, was.segment, was.cluster
        self._inside, self._time, self._others, self.scale = was.inside, was.time, was.others, was.scale
        for number, (rows, duration, padding) in was.tracks.items():
            frames = self.frames[number]
            frames.rows.frombytes(rows)
            frames.duration, frames.padding = duration, padding


def taken_up(read: Read, size: int, saved: bytes, *, far: bool) -> Scan:
    """A scan of a whole file of ``size`` bytes, from where one of its beginning stood; from the start where ``saved`` does not say
    that (it is empty, damaged, or of another file). Raises `IndexRefused` as `Scan` does."""
    if saved:
        scan = LastingScan(read, far=far)
        try:
            if scan.headed(size):
                scan.resume(saved)
                if scan.at <= size:
                    return scan
        except (msgspec.DecodeError, KeyError, ValueError):
            pass
    return Scan(read, far=far)
