"""The storyboard of a film as WebVTT: a cue for every small picture, pointing into its sheet by a media fragment."""

from __future__ import annotations

from streamgate.contracts.transcoder import Storyboard


def storyboard_vtt(storyboard: Storyboard, duration: float) -> str:
    """The cues, relative to the file: ``storyboard/{sheet}.jpg#xywh=x,y,w,h`` (Media Fragments URI 1.0, section 4.2.2).

    ``duration``: of the film, in seconds; the last cue ends there.
    """
    lines = ["WEBVTT", ""]
    end = max(1, round(duration * 1000))
    per_sheet = storyboard.columns * storyboard.rows
    for number in range(storyboard.count):
        sheet, place = divmod(number, per_sheet)
        row, column = divmod(place, storyboard.columns)
        begin = number * storyboard.interval_ms
        area = f"{column * storyboard.width},{row * storyboard.height},{storyboard.width},{storyboard.height}"
        lines += [
            f"{_time(begin)} --> {_time(max(begin + 1, min(end, begin + storyboard.interval_ms)))}",
            f"storyboard/{sheet}.jpg#xywh={area}",
            "",
        ]
    return "\n".join(lines)


def _time(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
