"""When pictures are shown where the container only says when they are decoded (AVI).

A decoder puts pictures into the order in which they are shown and therefore holds some back; the picture that comes out
while packet n is decoded is shown when packet n - h was to be decoded, h being how many are held back.
"""

from __future__ import annotations

from collections import deque

import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgate.media.opening import Source

_LOOKED_AT = 48
"""Packets decoded to see how many pictures are held back; more than any decoder holds."""

_KEPT = 96
"""Decoding times kept: those held back, and those of the decoder's threads."""


class ShowingTimes:
    """The decoding times of a track's packets as they are read, and from them when pictures are shown, in the same ticks."""

    def __init__(self, held: int) -> None:
        self._held = held
        self._times: deque[int] = deque(maxlen=_KEPT)
        self._left = held

    def read(self, time: int) -> None:
        """A packet with a picture, to be decoded at ``time``, was read."""
        self._times.append(time)

    def of(self, decoded: int | None) -> int | None:
        """When a picture is shown that came out with the packet of time ``decoded`` (None: after the last one); None: unknown."""
        if decoded is None:
            place = len(self._times) - self._left
            self._left = max(1, self._left - 1)
        elif decoded in self._times:
            place = self._times.index(decoded) - self._held
        else:
            return None
        return self._times[max(0, place)] if self._times else None


def held_back(source: Source, max_pixels: int, index: int) -> int:
    """How many pictures the decoder of a track holds back: those that come out when it is told that nothing follows.

    0 when nothing can be decoded.
    """
    with source.open(max_pixels) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.thread_count = 1
        try:
            for number, packet in enumerate(container.demux(stream)):
                if number >= _LOOKED_AT or not packet.size:
                    break
                _pictures(context, packet)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return 0
        return _pictures(context, None)


def _pictures(context: VideoCodecContext, packet: Packet[VideoStream] | None) -> int:
    """How many come out of the decoder now; a packet that cannot be decoded gives none."""
    try:
        return len(context.decode(packet))
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return 0
