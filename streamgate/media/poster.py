"""One picture of a film as a JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av.error
from av.codec.context import CodecContext
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamgate.media.decoding import packets, seek
from streamgate.media.ladder import even
from streamgate.media.opening import Source
from streamgate.media.picture import PictureChain
from streamgate.media.probe import orientation
from streamgate.media.recipe import Recipe, VideoRecipe, unpack
from streamgate.media.wire import PosterTask

_PLACES = (Fraction(1, 10), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(0))
_PACKETS_TRIED = 1000
_LIVELY = 12.0
"""A picture whose brightness spreads less than this (of 255) around its mean is black, white or a fade."""

_QUALITY = "4"
_LEAST_QUALITY = 2


def make_poster(source: Source, task: PosterTask) -> bytes:
    """A JPEG, upright, at most ``task.width`` pixels wide; empty when the film has no picture.

    Without a time: the first of a few places whose picture is not all of one brightness.
    """
    recipe = unpack(task.recipe)
    if recipe.video is None:
        return b""
    duration = Fraction(task.duration)
    places = [Fraction(task.at_s)] if task.at_s is not None else [place * duration for place in _PLACES]
    best: tuple[float, VideoFrame] | None = None
    with source.open(recipe.video.max_pixels) as container:
        for place in places:
            frame = picture_at(
                container, recipe, recipe.video, max(Fraction(0), min(place, duration)), exact=task.at_s is not None
            )
            if frame is None:
                continue
            spread = _spread(frame)
            if best is None or spread > best[0]:
                best = (spread, frame)
            if spread >= _LIVELY:
                break
        if best is None:
            return b""
        aspect = _aspect(container, recipe.video)
    return _jpeg(best[1], recipe.video, aspect, task.width)


def picture_at(
    container: InputContainer, recipe: Recipe, video: VideoRecipe, time: Fraction, *, exact: bool
) -> VideoFrame | None:
    """The picture on screen at a time of the film, or where exactness does not matter the key frame before it."""
    seek(container, video.index, recipe.zero() + time)
    last: VideoFrame | None = None
    for frame in _frames(container, video.index):
        base = frame.time_base or Fraction(1, 1000)
        if frame.pts is not None and last is not None and frame.pts * base - recipe.zero() > time:
            return last
        if not exact:
            return frame
        last = frame
    return last


def _frames(container: InputContainer, index: int) -> Iterator[VideoFrame]:
    container.streams[index].codec_context.flush_buffers()
    for tried, packet in enumerate(packets(container, index)):
        try:
            frames = packet.decode()
        except (av.error.InvalidDataError, av.error.PatchWelcomeError, EOFError):
            frames = []
        yield from (frame for frame in frames if isinstance(frame, VideoFrame))
        if tried > _PACKETS_TRIED:
            return


def _aspect(container: InputContainer, video: VideoRecipe) -> Fraction:
    stream = container.streams[video.index]
    assert isinstance(stream, VideoStream)
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else Fraction(1)


def _spread(frame: VideoFrame) -> float:
    """The standard deviation of the brightness, measured on a small copy."""
    small = frame.reformat(width=32, height=32, format="gray8" if frame.format.name == "gray8" else "gray")
    plane = small.planes[0]
    rows = bytes(plane)
    values = [rows[row * plane.line_size + column] for row in range(32) for column in range(32)]
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


def _jpeg(frame: VideoFrame, video: VideoRecipe, aspect: Fraction, most: int) -> bytes:
    width, height = frame.width * aspect, Fraction(frame.height)
    turn, _ = orientation(frame)
    if turn in (90, 270):
        width, height = height, width
    scale = min(Fraction(1), Fraction(max(2, most)) / width)
    chain = PictureChain(video, even(width * scale), even(height * scale), pix_fmt="yuvj420p")
    frame.pts = 0
    pictures = chain.push(frame) + chain.flush()
    return jpeg(pictures[0])


def jpeg(picture: VideoFrame) -> bytes:
    """A 4:2:0 picture as a JPEG."""
    encoder = CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, picture.format.name
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"qmin": _QUALITY, "qmax": _QUALITY, "strict": "unofficial"}
    encoder.open()
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))
