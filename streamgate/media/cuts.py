"""Where segments begin: one list of cuts for all renditions of a film, from the times of its frames."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

AAC_FRAME = 1024
"""Samples per AAC frame; audio is cut between frames of one grid that begins at time 0."""

_SHORTEST_TAIL = Fraction(1, 8)
_WITH_THE_LAST = 4 / 3
"""Times its greatest length that a run may be so that no segment is left alone."""


def video_boundaries(times: Sequence[int], end: int, step: int) -> tuple[int, ...]:
    """Boundaries in ticks for frames that begin at ``times`` (ascending) and a film that ends at ``end``.

    The first is always 0 (a first frame that begins later is shown from 0 on, so that playlist, tfdt and audio agree);
    each further one is the first frame at or after a multiple of ``step``, or, when no frame begins for a whole step,
    the multiple itself, where the frame on screen is encoded once more. A last segment shorter than an eighth of
    a step joins the one before it.
    """
    made = [0]
    position = step
    while position < end:
        index = bisect_left(times, position)
        frame = times[index] if index < len(times) else end
        cut = frame if frame < position + step else position
        if cut >= end:
            break
        if cut > made[-1]:
            made.append(cut)
        position += step
    if len(made) > 1 and end - made[-1] < step * _SHORTEST_TAIL:
        made.pop()
    return (*made, end)


def audio_boundaries(cuts: Sequence[Fraction], end: int, rate: int, step: Fraction) -> tuple[int, ...]:
    """Boundaries in samples for ``end`` samples of audio beside video segments that begin at ``cuts`` (seconds).

    Each is the first AAC frame at or after the cut. Where the audio outlasts the video, cuts go on every ``step``
    seconds; where it ends early it has fewer segments.
    """
    frames = -(-end // AAC_FRAME)
    last = frames * AAC_FRAME
    starts = list(cuts)
    while (starts[-1] + step) * rate < last:
        starts.append(starts[-1] + step)
    made: list[int] = []
    for cut in starts:
        sample = -(-int(-(-(cut * rate) // 1)) // AAC_FRAME) * AAC_FRAME
        if sample >= last:
            break
        if not made or sample > made[-1]:
            made.append(sample)
    shortest = float(step) * rate * float(_SHORTEST_TAIL)
    if len(made) > max(1, len(cuts)) and last - made[-1] < shortest:
        made.pop()
    return (*made, last)


def runs(
    segments: int, per_run: int, *, edges: Sequence[float] = (), most_s: float = 0.0
) -> tuple[tuple[int, int], ...]:
    """(first, end) of the segments that are encoded at a stretch: the first is one, so that a film starts soon; a lone last one
    joins its neighbours.

    With ``edges`` (the boundaries of the segments, in seconds) a run of several segments is no longer than ``most_s`` (the last
    one than a third more).
    """
    if segments == 0:
        return ()
    made = [(0, 1)]
    first = 1
    while first < segments:
        end = min(segments, first + per_run)
        while edges and end - first > 1 and edges[end] - edges[first] > most_s:
            end -= 1
        if segments - end == 1 and not (edges and edges[segments] - edges[first] > most_s * _WITH_THE_LAST):
            end = segments
        made.append((first, end))
        first = end
    return tuple(made)
