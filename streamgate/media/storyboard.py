"""Small pictures of a film, in sheets, for players that show where a seek would go."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streamgate.contracts.transcoder import Storyboard
from streamgate.media.decoding import only, packets, seek
from streamgate.media.ladder import even
from streamgate.media.opening import Source
from streamgate.media.picture import PictureChain
from streamgate.media.poster import jpeg, picture_at
from streamgate.media.recipe import Recipe, VideoRecipe, unpack
from streamgate.media.wire import SheetTask

LONG_SIDE = 160
"""Pixels of the longer side of a small picture."""

MOST = 200
LEAST_INTERVAL_MS = 2000
COLUMNS = 5
ROWS = 5
BLACK = (16, 128, 128)
_STEPS_BACK = (Fraction(0), Fraction(4), Fraction(12))
"""Seconds before the wanted time to which is sought until a key frame lies early enough: not every container has an index."""

_PACKETS_TRIED = 1000


def layout(width: int, height: int, duration: float) -> Storyboard:
    """How the storyboard of a film of that size (pixels, upright) and duration (seconds) is laid out."""
    milliseconds = max(1, round(duration * 1000))
    interval = max(LEAST_INTERVAL_MS, -(-milliseconds // MOST))
    scale = Fraction(LONG_SIDE, max(width, height))
    return Storyboard(
        interval_ms=interval,
        count=-(-milliseconds // interval),
        columns=COLUMNS,
        rows=ROWS,
        width=even(width * scale),
        height=even(height * scale),
    )


def make_sheet(source: Source, task: SheetTask) -> bytes:
    """One sheet as a JPEG: for each of its times the key frame before it. What cannot be decoded stays black.

    Empty when the film has no picture at all.
    """
    recipe, plan = unpack(task.recipe), task.plan
    if recipe.video is None:
        return b""
    first = task.number * plan.columns * plan.rows
    tiles = range(first, min(plan.count, first + plan.columns * plan.rows))
    rows = min(plan.rows, -(-len(tiles) // plan.columns))
    sheet = _Sheet(plan.columns * plan.width, rows * plan.height)
    shown = 0
    with source.open(recipe.video.max_pixels) as container:
        for place, number in enumerate(tiles):
            time = Fraction(number * plan.interval_ms, 1000)
            frame = _key_picture(container, recipe, recipe.video, time)
            if frame is not None:
                down, across = divmod(place, plan.columns)
                sheet.put(_small(frame, recipe.video, plan), across * plan.width, down * plan.height)
                shown += 1
    return jpeg(sheet.picture()) if shown else b""


def _key_picture(container: InputContainer, recipe: Recipe, video: VideoRecipe, time: Fraction) -> VideoFrame | None:
    """The last key frame at or before a time of the film, else the first after it; only key frames are decoded.

    A film in which none is found so gives any picture from there on. None when nothing can be decoded.
    """
    only(container, video.index)
    stream = container.streams[video.index]
    base, context = stream.time_base or Fraction(1, 1000), stream.codec_context
    context.skip_frame = "NONKEY"
    later: VideoFrame | None = None
    for back in _STEPS_BACK:
        if not seek(container, video.index, recipe.zero() + time - back):
            break
        found: VideoFrame | None = None
        for frame in _key_frames(container, video.index):
            if frame.pts is not None and frame.pts * base - recipe.zero() > time:
                later = frame
                break
            found = frame
            if not back:
                break
        if found is not None:
            return found
        if back > time:
            break
    context.skip_frame = "DEFAULT"
    return later if later is not None else picture_at(container, recipe, video, time, exact=False)


def _key_frames(container: InputContainer, index: int) -> Iterator[VideoFrame]:
    """Key frames from where the container stands, each as soon as its packet is read."""
    context = container.streams[index].codec_context
    assert isinstance(context, VideoCodecContext)
    context.flush_buffers()
    for tried, packet in enumerate(packets(container, index)):
        frames = _decoded(context, packet)
        if packet.is_keyframe and not frames:
            # The decoder waits for others to put in order: it is told that none come.
            frames = _decoded(context, None)
            context.flush_buffers()
        yield from frames
        if tried > _PACKETS_TRIED:
            return


def _decoded(context: VideoCodecContext, packet: Packet[Stream] | None) -> list[VideoFrame]:
    try:
        return context.decode(packet)
    except (av.error.InvalidDataError, av.error.PatchWelcomeError, av.error.ExternalError, EOFError):
        return []


def _small(frame: VideoFrame, video: VideoRecipe, plan: Storyboard) -> VideoFrame:
    chain = PictureChain(video, plan.width, plan.height)
    frame.pts = 0
    return (chain.push(frame) + chain.flush())[0]


class _Sheet:
    """A picture that others are put on; 4:2:0, so everything lies at even places."""

    def __init__(self, width: int, height: int) -> None:
        self._frame = VideoFrame(width, height, "yuv420p")
        self._planes = [
            bytearray([value]) * plane.buffer_size for value, plane in zip(BLACK, self._frame.planes, strict=True)
        ]

    def put(self, picture: VideoFrame, left: int, top: int) -> None:
        """Copy a picture to a place."""
        for number, (ours, theirs, target) in enumerate(
            zip(self._planes, picture.planes, self._frame.planes, strict=True)
        ):
            half = 2 if number else 1
            data = memoryview(theirs)
            for row in range(theirs.height):
                at = (top // half + row) * target.line_size + left // half
                begin = row * theirs.line_size
                ours[at : at + theirs.width] = data[begin : begin + theirs.width]

    def picture(self) -> VideoFrame:
        """The sheet as it is now."""
        for data, plane in zip(self._planes, self._frame.planes, strict=True):
            plane.update(bytes(data))
        return self._frame
