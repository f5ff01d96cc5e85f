"""Opening a stranger's file with libav so that it can reach nothing else, and saying in our words what is wrong with it.

By default libav would follow a playlist (HLS, DASH, ffconcat, SDP) to other local files and hosts, also when the
playlist comes as a Python file object. Here only true containers may open, nested protocols are off, external data
references are off, and stream counts, probing and picture sizes are bounded.
"""

from __future__ import annotations

import io
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import av
import av.error
from av.container import InputContainer

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.media.boxes import missing_index
from streamgate.media.wire import (
    MANY_RANGES,
    MAX_RANGE,
    MAX_RANGES,
    TURN,
    Given,
    GivenAll,
    Indexed,
    Want,
    WantAll,
    receive,
    send,
)

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,ogg,mp3,wav,w64,aac,flac,asf,amr,amrnb,amrwb,"
    "aiff,caf,ac3,eac3,gif"
)
"""The demuxers that may run (names as libav has them)."""

MAX_STREAMS = 64
MAX_PIXELS = 8192 * 8192
"""The bound on pictures where no other is known."""

_BLOCK = 512 << 10
_BLOCKS_KEPT = 8
_BLOCKS_FIRST = 4
_SHORT = 4 << 10
_KEPT = 64 << 20
_LOST = "The bytes of the source could not be read."

_SENTENCES = {
    FailureCode.UNSUPPORTED_CONTAINER: "This is not a video file that can be read here. Use MP4, MOV, MKV, WebM or MPEG-TS.",
    FailureCode.UNSUPPORTED_CODEC: "The film is encoded in a way that cannot be decoded here. Use H.264, HEVC, VP9 or AV1.",
    FailureCode.MALFORMED_MEDIA: "The file is damaged: it cannot be read as a film. Export or upload it again.",
    FailureCode.TRUNCATED_MEDIA: "The file ends too early: a part of it is missing. Upload it again.",
    FailureCode.NO_MEDIA_STREAMS: "The file holds neither video nor sound.",
    FailureCode.TOO_LARGE: "The film needs more memory to decode than one film may use. Re-encode it at a smaller size.",
    FailureCode.ENCRYPTED_MEDIA: "The film is encrypted (DRM). Upload it without protection.",
}


class SourceLost(Exception):
    """The server could not read the source; the film is not to blame."""


def refused(code: FailureCode, detail: str | None = None) -> MediaRefused:
    """A verdict with the sentence that belongs to its code, or another one."""
    return MediaRefused(code, detail or _SENTENCES[code])


def verdict(error: av.error.FFmpegError) -> tuple[FailureCode, str]:
    """What an error of the library means for the film; never its own words.

    What an encoder gets was planned, so that it fails for want of memory; x264 says only that it did.
    """
    if isinstance(error, (MemoryError, av.error.ExternalError)):
        code = FailureCode.TOO_LARGE
    elif isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
        code = FailureCode.UNSUPPORTED_CODEC
    elif isinstance(error, EOFError):
        code = FailureCode.TRUNCATED_MEDIA
    else:
        code = FailureCode.MALFORMED_MEDIA
    return code, _SENTENCES[code]


class RangeFile(io.RawIOBase):
    """A source of which only ranges can be had: a seekable file whose bytes the server sends on request."""

    def __init__(self, size: int, asking: _Asking) -> None:
        super().__init__()
        self.name = "source"
        self._size = size
        self._asking = asking
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("before the beginning")
        self._at = start + offset
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, fewer at the end of a block; b"" at the end of the source."""
        if self._at >= self._size or size == 0:
            return b""
        index, inside = divmod(self._at, _BLOCK)
        block = self._block(index)
        piece = block[inside:] if size < 0 else block[inside : inside + size]
        self._at += len(piece)
        return piece

    def _block(self, index: int) -> bytes:
        block = self._blocks.get(index)
        if block is None:
            offset = index * _BLOCK
            block = self.range(offset, min(_BLOCK, self._size - offset))
            self._blocks[index] = block
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(index)
        return block

    def range(self, offset: int, length: int, *, keep: bool = False) -> bytes:
        """Exactly those bytes; `SourceLost` when the server cannot give them. ``keep``: somebody else will ask for them too."""
        return self._asking.range(offset, length, keep=keep)

    def many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges, as `range` gives them, for as few round trips as that takes."""
        return self._asking.many(ranges)


class _Asking:
    """Asks the server for bytes of the source; by any thread, one at a time.

    Long ranges are kept (`_KEPT` bytes of them): an index that was read once is not fetched again for the next who opens the film,
    and what is kept can be had while another thread asks. The first short ranges (`_BLOCKS_FIRST` of them) are read as whole blocks
    and kept too: they are the headers of boxes, which lie close together, and where libav begins as well. ``whole``: the length of
    a source of which all is there; 0: only what is asked for is read.
    """

    def __init__(self, link: socket.socket, whole: int = 0) -> None:
        self._link = link
        self._whole = whole
        self._blocks_left = _BLOCKS_FIRST
        self._turn = TURN
        self._keeping = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def range(self, offset: int, length: int, *, keep: bool = False) -> bytes:
        if length <= MAX_RANGE:
            found = self._one(offset, length)
            return self._keep(offset, found) if keep and length > _SHORT else found
        known = self._known(offset, length)
        if known is not None:
            return known
        pieces = self._given(
            [(at, min(MAX_RANGE, offset + length - at)) for at in range(offset, offset + length, MAX_RANGE)]
        )
        return self._keep(offset, b"".join(pieces))

    def many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [bytes(piece) for piece in self._given(ranges)]

    def _given(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Those ranges, as they lie in the answers."""
        found: list[memoryview] = []
        for some in _in_groups(ranges):
            with self._turn:
                send(self._link, WantAll(some))
                data = receive(self._link, GivenAll).data
            if data is None or [len(piece) for piece in data] != [length for _, length in some]:
                raise SourceLost(_LOST)
            found += data
        return found

    def tell(self, message: Indexed) -> None:
        send(self._link, message)

    def _one(self, offset: int, length: int) -> bytes:
        known = self._known(offset, length)
        if known is not None:
            return known
        with self._turn:
            known = self._known(offset, length)
            if known is not None:
                return known
            if length <= _SHORT and self._blocks_left and offset + length <= self._whole:
                self._blocks_left -= 1
                begin = offset // _BLOCK * _BLOCK
                end = min(self._whole, max(begin + _BLOCK, offset + length))
                block = self._keep(begin, self._fetched(begin, end - begin))
                return block[offset - begin : offset - begin + length]
            return self._fetched(offset, length)

    def _fetched(self, offset: int, length: int) -> bytes:
        pieces = bytearray()
        while length > 0:
            send(self._link, Want(offset, length))
            found = receive(self._link, Given).data
            if found is None or not 0 < len(found) <= length:
                raise SourceLost(_LOST)
            pieces += found
            offset, length = offset + len(found), length - len(found)
        return bytes(pieces)

    def _known(self, offset: int, length: int) -> bytes | None:
        with self._keeping:
            for start, data in self._kept.items():
                if start <= offset and offset + length <= start + len(data):
                    return data[offset - start : offset - start + length]
        return None

    def _keep(self, offset: int, data: bytes) -> bytes:
        with self._keeping:
            self._kept[offset] = data
            while sum(map(len, self._kept.values())) > _KEPT:
                self._kept.popitem(last=False)
        return data


def _in_groups(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], ...]]:
    """As many ranges as may be asked for at once, again and again."""
    group: list[tuple[int, int]] = []
    for wanted in ranges:
        if group and (len(group) == MANY_RANGES or sum(length for _, length in (*group, wanted)) > MAX_RANGES):
            yield tuple(group)
            group = []
        group.append(wanted)
    if group:
        yield tuple(group)


class PartFile(RangeFile):
    """A source of which only some ``extents`` (begin, end) are there: elsewhere it ends."""

    def __init__(self, size: int, extents: Sequence[tuple[int, int]], asking: _Asking) -> None:
        super().__init__(size, asking)
        self._extents = extents

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, fewer where an extent ends; b"" outside them all."""
        end = next((end for begin, end in self._extents if begin <= self._at < end), self._at)
        count = min(_BLOCK if size < 0 else size, end - self._at)
        if count <= 0:
            return b""
        piece = self.range(self._at, count)
        self._at += len(piece)
        return piece


class Source:
    """The film of this child: opened as often as needed, by path or by ranges. ``extents``: what of it is there, if not all."""

    def __init__(
        self, size: int, path: str | None, link: socket.socket | _Asking, extents: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.size = size
        self.extents = extents
        self._telling: threading.Thread | None = None
        self.told: bytes | None = None
        """The sample index that the server has been told."""
        self._path = path
        self._asking = link if isinstance(link, _Asking) else _Asking(link, 0 if extents else size)

    def excerpt(self, data: bytes) -> Source:
        """A file in memory that was made of pieces of this one."""
        return _Excerpt(len(data), None, self._asking, data)

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Those ranges, (offset, length) each; `SourceLost` when they cannot be had."""
        with self.raw() as raw:
            if isinstance(raw, RangeFile):
                return (
                    [raw.range(*one) for one in ranges] if any(n > MAX_RANGE for _, n in ranges) else raw.many(ranges)
                )
            found = [os.pread(raw.fileno(), length, offset) for offset, length in ranges]
        if [len(piece) for piece in found] != [length for _, length in ranges]:
            raise SourceLost(_LOST)
        return found

    def tell_index(self, index: bytes) -> None:
        """Send the server a sample index of the source ahead of the plan, whoever reads the source meanwhile. Once; returns before
        it is sent."""
        self.told = index
        self._telling = threading.Thread(target=self._asking.tell, args=(Indexed(index),), name="telling", daemon=True)
        self._telling.start()

    def heard_out(self) -> None:
        """Return when what was told is sent."""
        if self._telling is not None:
            self._telling.join()

    @property
    def far(self) -> bool:
        """Whether each read is a round trip to the server, and perhaps on to an object store."""
        return self._path is None

    def raw(self) -> io.RawIOBase | io.BytesIO:
        """The bytes themselves."""
        if self._path is not None:
            return open(self._path, "rb", buffering=0)  # noqa: PTH123  the caller closes it
        return self.ranges()

    def ranges(self) -> RangeFile:
        """The bytes as the server sends them."""
        if self.extents:
            return PartFile(self.size, self.extents, self._asking)
        return RangeFile(self.size, self._asking)

    def open(self, max_pixels: int) -> InputContainer:
        """The container, opened under every restriction. Raises `MediaRefused`."""
        restrictions = {
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "file" if self._path is not None else "none",
            "enable_drefs": "0",
            "max_streams": str(MAX_STREAMS),
            "probesize": str(8 << 20),
            "analyzeduration": "10000000",
        }
        target = f"file:{self._path}" if self._path is not None else self.raw()
        try:
            return av.open(
                target,
                "r",
                options={"max_pixels": str(max_pixels)},
                container_options=restrictions,
                buffer_size=256 << 10,
            )
        except MemoryError:
            raise
        except (av.error.FFmpegError, UnicodeError) as error:
            raise self._why(error) from None

    def _why(self, error: Exception) -> MediaRefused:
        with self.raw() as raw:
            truncated = missing_index(raw, self.size)
        if truncated:
            return refused(FailureCode.TRUNCATED_MEDIA)
        if truncated is False or isinstance(error, EOFError):
            return refused(FailureCode.MALFORMED_MEDIA)
        return refused(FailureCode.UNSUPPORTED_CONTAINER)


class _Excerpt(Source):
    """A film in memory."""

    def __init__(self, size: int, path: str | None, link: _Asking, data: bytes) -> None:
        super().__init__(size, path, link)
        self._data = data

    def raw(self) -> io.BytesIO:
        return io.BytesIO(self._data)


def library_versions() -> tuple[str, list[str]]:
    """The version of the media library, and what it lacks of the encoders that films are made with."""
    needed = {"libx264": "x264", "aac": "AAC", "mjpeg": "JPEG"}
    return av.__version__, [name for codec, name in needed.items() if codec not in av.codecs_available]
