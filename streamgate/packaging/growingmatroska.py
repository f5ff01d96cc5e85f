"""A Matroska or WebM file that still arrives: a scan that goes on where the last one stopped, and the index of what it found."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from streamgate.packaging.arriving import Arriving
from streamgate.packaging.cutting import SourceIndex, index_of
from streamgate.packaging.matroska import Frames
from streamgate.packaging.matroskaindex import describe_video, picture, shown_tracks
from streamgate.packaging.matroskascan import LastingScan
from streamgate.packaging.mp4boxes import IndexRefused

MAGIC = b"\x1a\x45\xdf\xa3"
"""The first bytes of every such file."""

_MOST = 56 << 20
"""Bytes of a scan and an index together: they cross from child to server in one message."""

_KEY = 0x80
_ROW = 4


class GrowingScan(LastingScan):
    """A scan of a file of which more may come."""

    def drop_open_group(self) -> None:
        """Forget the pictures from the last key frame on: the order of their times is known when all of them have come."""
        entry = picture(self)
        if entry is None:
            return
        table = self.frames[entry.number].table()
        keys = [int(n) for n in ((table[:, 3] & _KEY) != 0).nonzero()[0]]
        last = keys[-1] if keys else 0
        self.frames[entry.number] = Frames(rows=self.frames[entry.number].rows[: last * _ROW])


def index_so_far(
    read: Arriving, saved: bytes, segment_s: float, heard: Mapping[int, Fraction] | None = None
) -> tuple[SourceIndex | None, bytes]:
    """The index of what has arrived, None while there is nothing to cut; and where the scan stands, to be given back the next time.

    ``heard``: as in `cutting.index_of`. Raises `IndexRefused` as `matroskaindex.index_matroska` does.
    """
    scan = GrowingScan(read, far=True)
    if not scan.headed(read.arrived):
        return None, b""
    describe_video(scan)
    if saved:
        scan.resume(saved)
    scan.advance(read.arrived)
    saved = scan.saved()
    scan.drop_open_group()
    if not all(frames.rows for frames in scan.frames.values()):
        return None, saved
    tracks, refused = shown_tracks(read, scan, far=False)
    index = index_of(read, read.size, tracks, refused, Fraction(segment_s).limit_denominator(1000), heard)
    if len(saved) + len(index.blob) > _MOST:
        raise IndexRefused("too_many_samples", "The film is too long to play before it is whole.")
    return index, saved
