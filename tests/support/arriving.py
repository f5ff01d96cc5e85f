"""Looks at a film of which more and more is there, as an upload brings it, without a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from streamgate.media.growing import look
from streamgate.media.model import Grown, LadderSettings, Limits, remuxed_file
from streamgate.media.opening import PartFile, Source, _Asking
from streamgate.media.wire import GrowTask


class _Given(_Asking):
    """Answers out of memory what a child asks the server for."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def range(self, offset: int, length: int, *, keep: bool = False) -> bytes:
        return self._data[offset : offset + length]

    def many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.range(*wanted) for wanted in ranges]


class _Part(Source):
    def __init__(self, data: bytes, end: int) -> None:
        super().__init__(len(data), None, _Given(data[:end]), ((0, end),))

    def ranges(self) -> PartFile:
        return PartFile(self.size, self.extents, self._asking)


class Watched:
    """What looks at ``data`` come to: ``written`` is all that was written out and counts, ``plans`` and ``counts`` of each look."""

    def __init__(self, data: bytes, folder: Path, segment_s: float = 1.0) -> None:
        self.data = data
        self.written = b""
        self.last = Grown(wanted=0)
        self.plans = [self.last.plan]
        self.counts = [0]
        self._folder = folder
        self._ladder = LadderSettings(passthrough=True, segment_s=segment_s)

    def look(self, end: int) -> Grown:
        """Look when the bytes up to ``end`` are there."""
        task = GrowTask(self._ladder, Limits(), ((0, end),), replace(self.last, plan=None))
        found = look(_Part(self.data, end), task, self._folder)
        for number, length in enumerate(found.written):
            piece = (self._folder / remuxed_file(number)).read_bytes()
            assert len(piece) == length
            self.written += piece
        for left in self._folder.iterdir():
            left.unlink()
        if found.wanted is not None:
            self.last = found
            assert len(self.written) == found.size
        if found.plan is not None:
            self.plans.append(found.plan)
            self.counts.append(found.count)
        return found

    def until(self, ends: Iterable[int]) -> Grown:
        """Look each time; what the last look came to, which may be the one after which there is no use in another."""
        found = self.last
        for end in ends:
            found = self.look(end)
            if found.wanted is None:
                break
        return found
