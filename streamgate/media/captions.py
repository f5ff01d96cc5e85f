"""Text subtitles of a film as WebVTT (W3C), on the film's own clock.

libav hands every text format over as lines of Advanced SubStation Alpha; what of their markup WebVTT can say is kept
(bold, italics, underline, line breaks), the rest is dropped, and everything else is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from streamgate.media.languages import bcp47
from streamgate.media.model import CaptionTrack

TEXT_CODECS = frozenset({"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"})
MAX_TRACKS = 32
MAX_CUES = 20_000
MAX_TEXT = 1 << 20
"""Bytes of cue text in UTF-8 that one track may have; what comes beyond is left out."""

MAX_SPAN_S = 60
"""A cue whose end nobody states stands until the next one, but no longer than this."""

_MICROSECONDS = 1_000_000
_OVERRIDE = re.compile(r"\\(?:([biu])(\d*)(?![A-Za-z(])|(r)|p(\d+))")
_TAG = re.compile(r"</?[biu]>")
_FIELDS_BEFORE_TEXT = 8
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_BLANKS = (*b"\t\v\f\r", 0x85, 0x2028, 0x2029)
_NO_TEXT = (0x202D, 0x202E, 0xFEFF, 0xFFFE, 0xFFFF)
"""Signs that turn the direction of what follows by force, byte order marks, and what is no character."""

_ESCAPES: dict[int, str | None] = {
    **dict.fromkeys((*_CONTROLS, *_NO_TEXT)),
    **dict.fromkeys(_BLANKS, " "),
    ord("\n"): "\n",
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
}
"""Cue text (section 4.2.2) of one line each. Joiners, marks of direction and wide spaces stay: scripts need them."""


class Cue(NamedTuple):
    """``start`` and ``end`` in microseconds of the source, ``end`` None when nobody states it; ``text`` is WebVTT cue text."""

    start: int
    end: int | None
    text: str


@dataclass(slots=True)
class Listener:
    """Collects the cues of one subtitle track while its packets go by."""

    index: int
    language: str | None
    title: str | None
    default: bool
    forced: bool
    cues: list[Cue] = field(default_factory=list)
    size: int = 0
    full: bool = False

    def hear(self, packet: Packet[Stream], base: Fraction) -> None:
        """Take one packet; what cannot be decoded, or comes beyond the limits, is left out. Times are the source's here."""
        if packet.pts is None or not 0 < packet.size <= MAX_TEXT or self.full:
            return
        context = packet.stream.codec_context
        assert isinstance(context, SubtitleCodecContext)
        try:
            found = context.decode2(packet)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return
        start = _microseconds(packet.pts, base)
        end = start + _microseconds(packet.duration, base) if packet.duration else None
        for part in found or ():
            text = cue_text(part.ass.decode("utf-8", "replace")) if isinstance(part, AssSubtitle) else ""
            size = len(text.encode())
            if self.full or self.size + size > MAX_TEXT:
                self.full = True
            elif text:
                self.cues.append(Cue(start, end, text))
                self.size += size
                self.full = len(self.cues) >= MAX_CUES

    def written(self, origin: Fraction, name: str, default: bool) -> CaptionTrack:
        """The finished track; ``origin``: the source time that is time 0 of the film."""
        return CaptionTrack(
            name=name,
            language=self.language,
            label=self.title,
            default=default,
            forced=self.forced,
            vtt=webvtt(self.cues, origin).encode(),
        )


def listeners(container: InputContainer) -> list[Listener]:
    """One for each text subtitle track that can be read, in the order of the file."""
    found: list[Listener] = []
    for stream in container.streams:
        if not isinstance(stream, SubtitleStream) or stream.codec_context is None:
            continue
        if stream.codec_context.name in TEXT_CODECS and len(found) < MAX_TRACKS:
            found.append(
                Listener(
                    index=stream.index,
                    language=bcp47(stream.language),
                    title=stream.metadata.get("title") or None,
                    default=bool(stream.disposition & Disposition.default),
                    forced=bool(stream.disposition & Disposition.forced),
                )
            )
    return found


def tracks(heard: Sequence[Listener], origin: Fraction) -> tuple[CaptionTrack, ...]:
    """The tracks that have cues, named by their language and apart from each other: ``en``, ``en-2``, ``und``.

    Only one that is forced is shown when nobody asks for it: containers call nearly every first track their default.
    """
    kept = [listener for listener in heard if listener.cues]
    first = next((listener for listener in kept if listener.default and listener.forced), None)
    names: set[str] = set()
    made = []
    for listener in kept:
        language = (listener.language or "und").lower()
        name, number = language, 1
        while name in names:
            number += 1
            name = f"{language}-{number}"
        names.add(name)
        made.append(listener.written(origin, name, listener is first))
    return tuple(made)


def webvtt(cues: Sequence[Cue], origin: Fraction) -> str:
    """A WebVTT file; ``origin``: the source time (seconds) that is time 0 of the film.

    Cues that end before the film begins are left out; one whose end nobody states stands until a later one begins.
    """
    zero = round(origin * _MICROSECONDS)
    following: int | None = None
    later: int | None = None
    written: list[str] = []
    # From the last to the first: what begins after a cue is then known when the cue is reached.
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end or 0), reverse=True):
        if later is not None and later > cue.start:
            following = later
        later = cue.start
        end = cue.end
        if end is None:
            end = cue.start + MAX_SPAN_S * _MICROSECONDS
            end = end if following is None else min(end, following)
        start = max(0, cue.start - zero)
        end -= zero
        if end > start:
            begin = _milliseconds(start)
            written.append(f"{_time(begin)} --> {_time(max(begin + 1, _milliseconds(end)))}\n{cue.text}\n\n")
    return "WEBVTT\n\n" + "".join(reversed(written))


def cue_text(line: str) -> str:
    """The text of one ASS event line (without its times) as WebVTT cue text; empty when nothing is to be read."""
    fields = line.split(",", _FIELDS_BEFORE_TEXT)
    if len(fields) <= _FIELDS_BEFORE_TEXT:
        return ""
    raw = fields[_FIELDS_BEFORE_TEXT].replace("\\N", "\n").replace("\\n", "\n").replace("\\h", "\u00a0")
    made: list[str] = []
    wanted: list[str] = []
    opened: list[str] = []
    drawing = False
    for text, overrides in _parts(raw):
        if text and not drawing:
            made += (*_switch(opened, wanted), text.translate(_ESCAPES))
            opened = list(wanted)
        for override in _OVERRIDE.finditer(overrides):
            style, value, reset, mode = override.groups()
            if mode is not None:
                drawing = mode.strip("0") != ""
            elif reset:
                wanted.clear()
            elif value.strip("0"):
                wanted += () if style in wanted else (style,)
            elif style in wanted:
                wanted.remove(style)
    made += _switch(opened, ())
    return _lines("".join(made))


def _lines(text: str) -> str:
    """Cue text without empty lines, which would end the cue; a line of tags alone belongs to the one before, or after."""
    lines: list[str] = []
    tags = ""
    for stretch in text.split("\n"):
        line = tags + stretch.strip()
        tags = ""
        if _TAG.sub("", line).strip():
            lines.append(line)
        elif lines:
            lines[-1] += line
        else:
            tags = line
    return "\n".join(lines)


def _parts(raw: str) -> Iterator[tuple[str, str]]:
    """Stretches of text, each with the override block after it. A brace that is never closed is text."""
    at = 0
    while (begin := raw.find("{", at)) >= 0 and (end := raw.find("}", begin)) >= 0:
        yield raw[at:begin], raw[begin + 1 : end]
        at = end + 1
    yield raw[at:], ""


def _switch(opened: Sequence[str], wanted: Sequence[str]) -> Iterator[str]:
    """Tags from the styles that are open to those that are wanted; they nest: what goes closes all that was opened after it."""
    kept = 0
    while kept < min(len(opened), len(wanted)) and opened[kept] == wanted[kept]:
        kept += 1
    yield from (f"</{style}>" for style in reversed(opened[kept:]))
    yield from (f"<{style}>" for style in wanted[kept:])


def _microseconds(ticks: int, base: Fraction) -> int:
    return ticks * base.numerator * _MICROSECONDS // base.denominator


def _milliseconds(microseconds: int) -> int:
    return (microseconds + 500) // 1000


def _time(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
