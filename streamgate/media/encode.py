"""One chunk of a film: decoded once, encoded by one thread per rendition, written as segments into the scratch folder."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

from av.video.frame import VideoFrame

from streamgate.domain.asset import FailureCode, MediaRefused, MediaWarning
from streamgate.media.audio import encode_audio
from streamgate.media.decoding import Pictures
from streamgate.media.excerpt import excerpted
from streamgate.media.model import AudioRung, EncodedChunk, EncodedSegment, PlannedRendition
from streamgate.media.opening import Source, refused
from streamgate.media.recipe import Recipe, unpack
from streamgate.media.video import RungEncoder, scheduled
from streamgate.media.wire import EncodeTask
from streamgate.packaging.segments import SegmentLayout

_AHEAD = 6
"""Decoded pictures that may wait for the slowest encoder."""

_LOOK = 0.5


def encode_chunk(source: Source, task: EncodeTask, folder: Path) -> EncodedChunk:
    """Encode the segments of a task; one file each in ``folder``.

    Raises `MediaRefused` for what is wrong with the film and `EncoderDiffers` when the result would not fit the plan.
    """
    recipe = unpack(task.recipe)
    shelf = _Shelf(folder)
    numbers = {r.name: _numbers(r, task) for r in task.renditions}
    video = [r for r in task.renditions if r.kind == "video" and numbers[r.name]]
    audio = [r for r in task.renditions if r.kind == "audio" and numbers[r.name]]
    damaged: list[int] = []
    workers = [
        _Worker(
            rendition.name, partial(_encode_audio, source, recipe, rendition, numbers[rendition.name], shelf, damaged)
        )
        for rendition in audio
    ]
    for worker in workers:
        worker.start()
    if video:
        damaged.append(_encode_video(source, recipe, video, numbers[video[0].name], shelf, task.pieces))
    for worker in workers:
        worker.finish()
    met = sum(damaged)
    warnings = (MediaWarning("damaged", "Parts of the film are damaged; they are skipped."),) if met else ()
    return EncodedChunk(segments=shelf.segments(), damaged=met, warnings=warnings)


class _Shelf:
    """Where finished segments are put, by any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[EncodedSegment] = []

    def put(self, rendition: str) -> Callable[[int, bytes], None]:
        """Writes segments of one rendition."""

        def write(number: int, data: bytes) -> None:
            name = f"{rendition}.{number}.m4s"
            (self._folder / name).write_bytes(data)
            self._made.append(EncodedSegment(rendition=rendition, number=number, file=name, length=len(data)))

        return write

    def segments(self) -> tuple[EncodedSegment, ...]:
        """All of them, in a fixed order."""
        return tuple(sorted(self._made, key=lambda segment: (segment.rendition, segment.number)))


class _Worker:
    """A thread whose error is raised where it is awaited."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self._error is not None

    def finish(self) -> None:
        """Wait for its end; raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  raised again by `finish`, in the thread that waits
            self._error = error


class _Lane:
    """The thread of one video rendition and the queue before it."""

    def __init__(self, encoder: RungEncoder, name: str) -> None:
        self._queue: queue.Queue[tuple[int, VideoFrame, bool] | None] = queue.Queue(_AHEAD)
        self._encoder = encoder
        self._worker = _Worker(name, self._drain)
        self._worker.start()

    def put(self, item: tuple[int, VideoFrame, bool] | None) -> None:
        """Give a picture, None for the end; raises what stopped the encoder."""
        while True:
            if self._worker.failed:
                self._worker.finish()
            try:
                self._queue.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return

    def finish(self) -> None:
        """Wait for the last segment."""
        self._worker.finish()

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            self._encoder.put(*item)
        self._encoder.close()


def _numbers(rendition: PlannedRendition, task: EncodeTask) -> range:
    return range(task.first, min(task.end, len(rendition.boundaries) - 1))


def _encode_audio(
    source: Source, recipe: Recipe, rendition: PlannedRendition, numbers: range, shelf: _Shelf, damaged: list[int]
) -> None:
    assert isinstance(rendition.rung, AudioRung)
    index = rendition.rung.stream_index
    track = next(track for track in recipe.audio if track.index == index)
    damaged.append(encode_audio(source, track, recipe.zero(), rendition, numbers, shelf.put(rendition.name)))


def _joined(source: Source, layout: SegmentLayout) -> bytes:
    """A segment of the source's own video, of its bytes."""
    spans = layout.span()
    found = source.pieces(spans)
    return layout.joined([(offset, data) for (offset, _), data in zip(spans, found, strict=True)])


def _shown(
    source: Source, recipe: Recipe, pieces: tuple[SegmentLayout, ...], start: int
) -> tuple[Pictures, Iterator[tuple[int, VideoFrame]]]:
    """The pictures from tick ``start`` on: of the pieces, or where they show none (the film is damaged there) of the source."""
    if pieces and recipe.video is not None and recipe.video.cut is not None:
        pictures = Pictures(source, excerpted(recipe))
        excerpt = source.excerpt(recipe.video.cut.init + b"".join(_joined(source, piece) for piece in pieces))
        shown = pictures.all_of(excerpt, from_zero=start == 0)
        with suppress(MediaRefused):
            first = next(shown, None)
            if first is not None:
                return pictures, chain((first,), shown)
    pictures = Pictures(source, recipe)
    return pictures, pictures.since(start)


def _encode_video(
    source: Source,
    recipe: Recipe,
    renditions: list[PlannedRendition],
    numbers: range,
    shelf: _Shelf,
    pieces: tuple[SegmentLayout, ...],
) -> int:
    assert recipe.video is not None
    boundaries = renditions[0].boundaries[numbers.start : numbers.stop + 1]
    pictures, shown = _shown(source, recipe, pieces, boundaries[0])
    encoders = [
        RungEncoder(rendition, recipe.video, numbers.start, numbers.stop, shelf.put(rendition.name))
        for rendition in renditions
    ]
    lanes = [_Lane(encoder, rendition.name) for encoder, rendition in zip(encoders, renditions, strict=True)]
    any_picture = False
    for item in scheduled(shown, boundaries):
        any_picture = True
        for lane in lanes:
            lane.put(item)
    if not any_picture:
        raise refused(FailureCode.MALFORMED_MEDIA)
    for lane in lanes:
        lane.put(None)
    for lane in lanes:
        lane.finish()
    return pictures.damaged
