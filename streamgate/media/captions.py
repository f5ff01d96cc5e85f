"""Text subtitles of a film as WebVTT (W3C), on the film's own clock.

libav hands every text format over as lines of Advanced SubStation Alpha; what of their markup WebVTT can say is kept
(bold, italics, underline, line breaks), the rest is dropped, and everything else is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

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
MAX_SPAN_S = 60
"""A cue whose end nobody states stands until the next one, but no longer than this."""

_OVERRIDE = re.compile(r"\{([^}]*)\}")
_STYLE = re.compile(r"\\([biu])(\d+)")
_FIELDS_BEFORE_TEXT = 8


@dataclass(frozen=True, slots=True)
class Cue:
    """``start`` and ``end`` in seconds of the film; ``text`` is WebVTT cue text (section 4.2.2)."""

    start: Fraction
    end: Fraction
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

    def hear(self, packet: Packet[Stream], base: Fraction) -> None:
        """Take one packet; what cannot be decoded, or comes beyond the limits, is left out. Times are the source's here."""
        if packet.pts is None or not packet.size or len(self.cues) >= MAX_CUES or self.size >= MAX_TEXT:
            return
        context = packet.stream.codec_context
        assert isinstance(context, SubtitleCodecContext)
        try:
            found = context.decode2(packet)
        except MemoryError:
            raise
        except av.error.FFmpegError:
            return
        start = packet.pts * base
        end = start + (packet.duration * base if packet.duration else MAX_SPAN_S)
        for part in found or ():
            text = cue_text(part.ass.decode("utf-8", "replace")) if isinstance(part, AssSubtitle) else ""
            if text:
                self.cues.append(Cue(start, end, text))
                self.size += len(text)

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
    names: dict[str, int] = {}
    made = []
    for listener in kept:
        language = (listener.language or "und").lower()
        names[language] = names.get(language, 0) + 1
        name = language if names[language] == 1 else f"{language}-{names[language]}"
        made.append(listener.written(origin, name, listener is first))
    return tuple(made)


def webvtt(cues: Sequence[Cue], origin: Fraction) -> str:
    """A WebVTT file; cues that end before the film begins are left out, and none outlasts the start of the next by accident."""
    ordered = sorted(cues, key=lambda cue: (cue.start, cue.end))
    lines = ["WEBVTT", ""]
    for number, cue in enumerate(ordered):
        end = cue.end
        if end - cue.start >= MAX_SPAN_S:
            following = next((other.start for other in ordered[number + 1 :] if other.start > cue.start), end)
            end = min(end, following)
        start, end = max(Fraction(0), cue.start - origin), end - origin
        if end <= start:
            continue
        lines += [f"{_time(start)} --> {_time(end)}", cue.text, ""]
    return "\n".join(lines) + "\n"


def cue_text(line: str) -> str:
    """The text of one ASS event line (without its times) as WebVTT cue text; empty when nothing is to be read."""
    fields = line.split(",", _FIELDS_BEFORE_TEXT)
    if len(fields) <= _FIELDS_BEFORE_TEXT:
        return ""
    raw = fields[_FIELDS_BEFORE_TEXT].replace("\\N", "\n").replace("\\n", "\n").replace("\\h", "\u00a0")
    made: list[str] = []
    opened: list[str] = []
    drawing, at = False, 0
    for match in _OVERRIDE.finditer(raw):
        made.append("" if drawing else _escaped(raw[at : match.start()]))
        at = match.end()
        if (mode := re.search(r"\\p(\d+)", match[1])) is not None:
            drawing = mode[1] != "0"
        for style, value in _STYLE.findall(match[1]):
            made += _switch(opened, style, on=value != "0")
    made.append("" if drawing else _escaped(raw[at:]))
    made += [f"</{style}>" for style in reversed(opened)]
    text = "\n".join(line.strip() for line in "".join(made).splitlines() if line.strip())
    return text if re.sub(r"<[^>]*>|\s", "", text) else ""


def _switch(opened: list[str], style: str, *, on: bool) -> Iterator[str]:
    """Tags that turn a style on or off; WebVTT tags nest, so what was opened after it is closed and opened again."""
    if on:
        if style not in opened:
            opened.append(style)
            yield f"<{style}>"
    elif style in opened:
        inner = opened[opened.index(style) + 1 :]
        yield from (f"</{other}>" for other in reversed(inner))
        yield f"</{style}>"
        yield from (f"<{other}>" for other in inner)
        opened.remove(style)


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(sign for sign in text if sign in {"\n", "\u00a0"} or sign.isprintable())


def _time(seconds: Fraction) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
