"""When the packets of a film are shown: from its container's index where that tells, else from reading every packet once."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction

from streamgate.domain.asset import FailureCode, MediaWarning
from streamgate.media import captions
from streamgate.media.model import Limits
from streamgate.media.opening import Source, refused
from streamgate.media.passing import Ahead, Passing
from streamgate.media.probe import Probe
from streamgate.media.scan import PacketTimes, begins, scan
from streamgate.packaging.sampleindex import IndexRefused, SourceIndex
from streamgate.packaging.segments import MAX_INDEX

DAMAGED = MediaWarning("damaged", "Parts of the file are damaged or missing; what is there is played.")


@dataclass(frozen=True, slots=True)
class Timed:
    """Times of the source: of packets by stream index, of what is to be encoded; ``end`` and ``origin`` in source seconds;
    ``index``: where they come from, when it is one; ``remuxed``: it is that of a copy in another form."""

    packets: dict[int, PacketTimes]
    origin: Fraction
    end: Fraction
    captions: tuple[captions.Listener, ...]
    warnings: tuple[MediaWarning, ...] = ()
    index: SourceIndex | None = None
    remuxed: bool = False


def scanned(source: Source, found: Probe, limits: Limits) -> Timed:
    """Times from one pass over the whole file."""
    indexes = [track.index for track in (found.video, *found.audio) if track is not None]
    scanned = scan(source, limits.max_pixels, indexes)
    damaged = any(track.damaged for track in scanned.packets.values())
    return Timed(
        packets=scanned.packets,
        origin=_origin(found, scanned.packets),
        end=max(track.end() for track in scanned.packets.values()),
        captions=scanned.captions,
        warnings=(DAMAGED,) if damaged else (),
    )


def tabled(source: Source, found: Probe, ahead: Ahead | None, limits: Limits) -> Timed | None:
    """Times from the index of a film that is encoded; None where there is none, or where it does not tell of the video."""
    try:
        index = ahead() if ahead is not None and found.container == "mp4" else None
    except IndexRefused:
        return None
    if index is None or found.video is None or index.video is None or index.video.number != found.video.index:
        return None
    if len(index.blob) > MAX_INDEX:
        return None
    video = index.video
    packets = begins(source, limits.max_pixels, [track.index for track in found.audio])
    shift = round(index.origin * video.timescale)
    times = array("q", (video.times + shift).tobytes())
    end = video.boundaries[-1] + shift
    packets[found.video.index] = PacketTimes(
        Fraction(1, video.timescale), times, first=times[0], last=end, last_duration=end - times[-1]
    )
    return Timed(
        packets=packets,
        origin=_origin(found, packets),
        end=max(track.end() for track in packets.values()),
        captions=_captions(source, found, limits),
        index=index,
    )


def _captions(source: Source, found: Probe, limits: Limits) -> tuple[captions.Listener, ...]:
    """What the text subtitles of a film say whose packets were not read: it is read as a whole where it has some."""
    told = any(track.kind == "subtitle" and track.codec in captions.TEXT_CODECS for track in found.tracks)
    return scan(source, limits.max_pixels, ()).captions if told else ()


def indexed(source: Source, found: Probe, passed: Passing, limits: Limits) -> Timed:
    """Times from the index of a film that passes through."""
    encoded = [track.index for track in found.audio if track.index not in passed.heard_everywhere]
    packets = begins(source, limits.max_pixels, encoded)
    for index in packets.keys() & passed.index.ends.keys():
        packets[index].last = max(packets[index].last, round(passed.index.ends[index] / packets[index].base))
    kept = [track for track in (passed.video, *passed.audio.values()) if track is not None]
    if passed.video is not None:
        packets[passed.video.number] = PacketTimes(Fraction(1, passed.video.timescale))
    return Timed(
        packets=packets,
        origin=passed.origin,
        end=passed.origin + max(Fraction(track.boundaries[-1], track.timescale) for track in kept),
        captions=_captions(source, found, limits),
        warnings=(DAMAGED,) if passed.index.cut_off else (),
        index=passed.index,
        remuxed=bool(passed.remuxed or passed.before),
    )


def _origin(found: Probe, packets: dict[int, PacketTimes]) -> Fraction:
    """The source time at which the film begins: its earliest picture or audible sample."""
    begins = [track.first for track in found.audio if packets[track.index].times]
    if found.video is not None and packets[found.video.index].times:
        track = packets[found.video.index]
        begins.append(min(track.times) * track.base)
    if not begins:
        raise refused(FailureCode.MALFORMED_MEDIA)
    return min(begins)
