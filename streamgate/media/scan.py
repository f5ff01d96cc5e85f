"""The times of every packet of the tracks to play, read from the container without decoding anything."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av.error

from streamgate.domain.asset import FailureCode
from streamgate.media.captions import Listener, listeners
from streamgate.media.opening import Source, refused

MAX_PACKETS = 10_000_000
UNSTAMPED = "avi"
_NONE = -(1 << 63)


@dataclass(slots=True)
class PacketTimes:
    """One track: presentation times in ticks of ``base`` of packets that are shown, in file order; ``last`` is the latest end."""

    base: Fraction
    times: array[int] = field(default_factory=lambda: array("q"))
    first: int | None = None
    last: int = 0
    last_duration: int = 0
    damaged: int = 0
    unstamped: bool = False
    """The container says only when pictures are decoded: AVI has one frame after the other, and libav makes the rest up."""

    def end(self) -> Fraction:
        """When the track ends (source seconds)."""
        return self.last * self.base


@dataclass(frozen=True, slots=True)
class Scan:
    """Everything that one pass over the file tells: times by stream index, and what the subtitle tracks say."""

    packets: dict[int, PacketTimes]
    captions: tuple[Listener, ...]


def begins(source: Source, max_pixels: int, indexes: Sequence[int]) -> dict[int, PacketTimes]:
    """The beginning of some tracks, read, and their end, as the container states it; by stream index."""
    found: dict[int, PacketTimes] = {}
    if not indexes:
        return found
    with source.open(max_pixels) as container:
        waiting = set(indexes)
        for packet in container.demux(*(container.streams[index] for index in indexes)):
            stream = container.streams[packet.stream_index]
            time = packet.pts if packet.pts is not None else packet.dts
            if packet.stream_index not in waiting or time is None:
                continue
            waiting.discard(packet.stream_index)
            track = PacketTimes(stream.time_base or Fraction(1, 1000), first=time)
            track.times.append(time)
            track.last = max(time + (packet.duration or 1), (stream.start_time or 0) + (stream.duration or 0))
            found[packet.stream_index] = track
            if not waiting:
                break
    for index in indexes:
        found.setdefault(index, PacketTimes(Fraction(1, 1000)))
    return found


def scan(source: Source, max_pixels: int, indexes: Sequence[int]) -> Scan:
    """Read the packets of some tracks, and of every text subtitle track.

    A file that breaks off ends early; `MediaRefused` when it has absurdly many packets.
    """
    with source.open(max_pixels) as container:
        heard = {listener.index: listener for listener in listeners(container)}
        unstamped = UNSTAMPED in container.format.name.split(",")
        found = {
            index: PacketTimes(container.streams[index].time_base or Fraction(1, 1000), unstamped=unstamped)
            for index in indexes
        }
        count = 0
        try:
            for packet in container.demux(*(container.streams[index] for index in (*indexes, *heard))):
                count += 1
                if count > MAX_PACKETS:
                    raise refused(FailureCode.TOO_LONG, "The film has too many frames. Cut it into parts.")
                listener = heard.get(packet.stream_index)
                if listener is not None:
                    listener.hear(packet, container.streams[listener.index].time_base or Fraction(1, 1000))
                    continue
                track = found.get(packet.stream_index)
                if track is None:
                    continue  # a damaged file may turn out to have more tracks than it announced
                time = packet.pts if packet.pts is not None and not track.unstamped else packet.dts
                if time is None or not packet.size:
                    continue
                if track.first is None:
                    track.first = time
                if packet.is_corrupt:
                    track.damaged += 1
                if packet.is_discard:
                    continue
                track.times.append(time)
                end = time + (packet.duration or 0)
                if end >= track.last or len(track.times) == 1:
                    track.last, track.last_duration = end, packet.duration or 0
        except MemoryError:
            raise
        except av.error.FFmpegError:
            for track in found.values():
                track.damaged += 1
        return Scan(found, tuple(heard.values()))
