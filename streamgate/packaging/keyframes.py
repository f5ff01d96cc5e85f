"""Which of the samples that a table calls key frames are: by what the first picture in each is coded as, for tables lie.

H.264 (ISO/IEC 14496-10, table 7-1), HEVC (23008-2, table 7-1), AV1 (AV1 bitstream, 5.9.2). Only the beginnings of samples are read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import numpy as np

from streamgate.packaging.arriving import Arriving
from streamgate.packaging.mp4boxes import IndexRefused, Read, ReadMany
from streamgate.packaging.sampletables import Flags, Samples

MANY = 8000
"""Claimed key frames up to which every one is looked at; of more, only those that segments are to begin with."""

_HEAD = 96
_FAR_HEAD = 1024
"""The same where each read is a round trip: what an encoder tells of itself, before the first picture, fits in."""

_LARGEST_HEAD = 16 << 10
_LOOKED_AT = 12


class Looking:
    """Looks at samples, by their numbers and each once: whether they are key frames. Of a source that still arrives, those are
    believed that are not there yet.

    Raises `IndexRefused` for such a source when it claims nothing that could be believed.
    """

    def __init__(self, read: Read, samples: Samples, codec: str, config: bytes) -> None:
        self._read = read
        self._arriving = read if isinstance(read, Arriving) else None
        if self._arriving is not None and not samples.stated:
            raise IndexRefused("no_keyframes", "The file does not say which of its pictures are key frames.")
        self._samples = samples
        self._judge, self._unit = _judge(codec, config)
        self._known: dict[int, bool] = {}
        self._heads: dict[int, bytes] = {}
        self._coming: Future[None] | None = None

    def __call__(self, number: int) -> bool:
        self._wait()
        if number not in self._known:
            offset, size = self._place(number)
            believed = self._arriving.known(offset, size) if self._arriving is not None else None
            self._known[number] = self._look(number, offset, size) if believed is None else believed
        return self._known[number]

    def _look(self, number: int, offset: int, size: int) -> bool:
        found = _is_key(self._read, offset, size, self._judge, self._unit, self._heads.pop(number, None))
        if self._arriving is not None:
            self._arriving.found(offset, key=found)
        return found

    def ahead(self, numbers: Iterable[int]) -> None:
        """These are going to be looked at: their first bytes are read at once, where the source can do that."""
        self._wait()
        self._fetch(numbers)

    def _fetch(self, numbers: Iterable[int]) -> None:
        new = [number for number in numbers if number not in self._known and number not in self._heads]
        wanted = [number for number in new if self._samples.sizes[number] > 0]
        if isinstance(self._read, ReadMany):
            places = [self._place(number) for number in wanted]
            heads = self._read.many([(offset, min(size, _FAR_HEAD)) for offset, size in places])
            self._heads.update(zip(wanted, heads, strict=True))

    def begin(self, numbers: Iterable[int]) -> None:
        """As `ahead`, in a thread: whoever looks waits until they are there."""
        coming: Future[None] = Future()

        def work() -> None:
            try:
                self._fetch(numbers)
                coming.set_result(None)
            except BaseException as error:  # noqa: BLE001  raised where they are looked at
                coming.set_exception(error)

        if isinstance(self._read, ReadMany):
            threading.Thread(target=work, name="heads", daemon=True).start()
            self._coming = coming

    def _wait(self) -> None:
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.result()

    def _place(self, number: int) -> tuple[int, int]:
        return int(self._samples.offsets[number]), int(self._samples.sizes[number])


def few_of(samples: Samples) -> list[int]:
    """The claimed key frames that tell whether the claims can be believed."""
    claimed = np.flatnonzero(samples.keys)
    few: list[int] = claimed[
        np.linspace(0, max(0, len(claimed) - 1), min(len(claimed), _LOOKED_AT)).astype(np.int64)
    ].tolist()
    return few


def verified(samples: Samples, look: Looking, *, far: bool) -> tuple[Flags, bool]:
    """The claimed key frames that are some, as far as they were worth looking at (`MANY`); and whether no more need be looked at.

    A track without a table of key frames says that every sample is one; a few tell whether that is so. Where each look costs a
    round trip (``far``), a few tell of every track whether its table can be believed; when one of them is none, all are looked at.
    """
    claimed = np.flatnonzero(samples.keys)
    few = few_of(samples)
    if far:
        look.ahead(few)
        if all(look(number) for number in few):
            return samples.keys, True
        look.ahead(claimed[:MANY].tolist())
    if len(claimed) > MANY:
        if not samples.stated and not all(look(number) for number in few):
            return np.zeros(len(samples), np.bool_), True
        return samples.keys, False
    keys = np.zeros(len(samples), np.bool_)
    keys[[number for number in claimed.tolist() if look(number)]] = True
    return keys, True


def closed(samples: Samples, keys: Flags) -> Flags:
    """Those key frames at which a group begins that needs nothing before it: all before are shown before, all after later."""
    shown = samples.shown
    before = np.append(np.iinfo(np.int64).min, np.maximum.accumulate(shown)[:-1])
    after = np.minimum.accumulate(shown[::-1])[::-1]
    found: Flags = keys & (before < shown) & (after == shown)
    return found


Judge = Callable[[bytes], bool | None]
"""The first bytes of a unit → whether it begins a key frame; None: not a picture, look at the next unit."""


def _judge(codec: str, config: bytes) -> tuple[Judge, int]:
    """How a unit of this coding is judged, and the bytes of a unit's length field (0: units tell their length themselves)."""
    if codec.startswith("avc"):
        return _avc, (config[4] & 3) + 1
    if codec.startswith(("hvc1", "hev1")):
        return _hevc, (config[21] & 3) + 1
    return _av1, 0


def _avc(unit: bytes) -> bool | None:
    kind = unit[0] & 0x1F
    return kind == 5 if 1 <= kind <= 5 else None


def _hevc(unit: bytes) -> bool | None:
    kind = unit[0] >> 1 & 0x3F
    return 16 <= kind <= 21 if kind < 32 else None


def _av1(unit: bytes) -> bool | None:
    kind, extended, sized = unit[0] >> 3 & 15, unit[0] & 4, unit[0] & 2
    if kind not in {3, 6}:
        return None
    at = 1 + bool(extended)
    if sized:
        while at < len(unit) and unit[at] & 0x80:
            at += 1
        at += 1
    return at < len(unit) and not unit[at] & 0x80 and unit[at] >> 5 & 3 == 0


def _is_key(read: Read, offset: int, size: int, judge: Judge, unit: int, head: bytes | None = None) -> bool:
    data = read(offset, min(size, _HEAD)) if head is None else head
    at = 0
    while at < size:
        if at + unit + 12 > len(data) and len(data) < min(size, at + unit + 12):
            if at + unit + 12 > _LARGEST_HEAD:
                return False
            data = read(offset, min(size, at + unit + _HEAD))
        beginning = data[at + unit : at + unit + 12]
        if not beginning:
            return False
        found = judge(beginning)
        if found is not None:
            return found
        length = int.from_bytes(data[at : at + unit], "big") if unit else _obu_length(beginning)
        if length <= 0:
            return False
        at += unit + length
    return False


def _obu_length(head: bytes) -> int:
    """Bytes of a whole OBU; 0 where it does not say."""
    at = 1 + bool(head[0] & 4)
    if not head[0] & 2:
        return 0
    length = shift = 0
    for byte in head[at : at + 8]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return at + length
    return 0
