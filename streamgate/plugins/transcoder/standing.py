"""Where a film stands, derived from its plan and the outcomes of its chunks; never counted along the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec.structs import replace

from streamgate.contracts.metadata import MediaReport, Rendition, SourceMode
from streamgate.contracts.transcoder import CaptionPlan, Growing, Presentation, RenditionPlan, SourcePlan
from streamgate.domain.asset import AssetState, Failure, FailureCode, MediaWarning
from streamgate.media.model import MediaPlan, PlannedRendition
from streamgate.plugins.transcoder.store import Film, Growth

NOTHING_PLAYS = Failure(FailureCode.MALFORMED_MEDIA, "No part of the film could be decoded. Export or upload it again.")
PARTS_MISSING = MediaWarning(
    "parts_missing", "Some parts of the film are damaged and are left out. Export or upload it again if that matters."
)


REMUXED = "remuxed"


@dataclass(frozen=True, slots=True)
class Standing:
    """Derived facts. ``progress`` from 0 to 1."""

    state: AssetState
    playable: bool
    progress: float
    error: Failure | None
    warnings: tuple[MediaWarning, ...]
    renditions: tuple[Rendition, ...]

    @property
    def final(self) -> bool:
        """Whether nothing happens any more by itself."""
        return self.state in {AssetState.READY, AssetState.FAILED, AssetState.CANCELED}


def segments(rendition: PlannedRendition) -> int:
    """How many segments the rendition has."""
    return len(rendition.boundaries) - 1


def takes_part(rendition: PlannedRendition, chunk: tuple[int, int]) -> bool:
    """Whether the rendition has segments in the chunk."""
    return chunk[0] < segments(rendition)


def length(plan: MediaPlan, chunks: range) -> float:
    """How long consecutive chunks are, in seconds."""
    first, end = plan.chunks[chunks[0]][0], plan.chunks[chunks[-1]][1]
    longest = max(plan.renditions, key=segments)
    edges = longest.boundaries
    return (edges[min(end, len(edges) - 1)] - edges[min(first, len(edges) - 1)]) / longest.timescale


def chunk_of(plan: MediaPlan, number: int) -> int | None:
    """The chunk that holds a segment; None outside the plan."""
    return _holding(plan.chunks, number)


def run_of(plan: MediaPlan, chunk: int) -> range:
    """The chunks that are encoded at a stretch with this one, when nobody waits for it."""
    run = _holding(plan.runs, chunk)
    return range(chunk, chunk + 1) if run is None else range(*plan.runs[run])


def all_runs(plan: MediaPlan) -> Iterator[range]:
    """All chunks, by runs."""
    chunk = 0
    while chunk < len(plan.chunks):
        run = run_of(plan, chunk)
        yield run
        chunk = run.stop


def _holding(spans: Sequence[tuple[int, int]], number: int) -> int | None:
    """Which of the spans, (first, end) in order, holds the number."""
    place = bisect_right(spans, number, key=lambda span: span[0]) - 1
    return place if place >= 0 and number < spans[place][1] else None


def stand(film: Film, done: Mapping[str, tuple[int, int]], *, begun: bool) -> Standing:
    """Where a film stands. A cold film is ready although most of it is not encoded.

    ``done``: by rendition, chunks encoded and chunks that cannot be; ``begun``: what the film begins with is there
    (`MediaPlan.opening`).
    """
    plan = film.plan
    if plan is None:
        return _unplanned(film)
    total = made = failed = 0
    views = []
    passes = len(plan.encoded) < len(plan.renditions)
    for rendition in plan.renditions:
        if rendition.passthrough is not None:
            views.append(_view(rendition, 1, 1))
            continue
        expected = sum(takes_part(rendition, chunk) for chunk in plan.chunks)
        encoded, impossible = done.get(rendition.name, (0, 0))
        total, made, failed = total + expected, made + encoded, failed + impossible
        views.append(_view(rendition, encoded, expected))
    error = film.error
    warnings = plan.warnings + ((PARTS_MISSING,) if failed and (made or passes or film.cold) else ())
    complete = made + failed >= total or film.cold
    if complete and not (made or passes or film.cold) and not error:
        error = NOTHING_PLAYS
    state = AssetState.READY if complete else AssetState.CANCELED if film.canceled else AssetState.PROCESSING
    if error:
        state = AssetState.FAILED
    playable = error is None and (begun or state is AssetState.READY)
    progress = 1.0 if film.cold or not total else made / total
    return Standing(state, playable, progress, error, warnings, tuple(views))


def _unplanned(film: Film) -> Standing:
    """A film plays before it is planned as far as its upload has come."""
    state = AssetState.UPLOADING if film.growing else AssetState.PROCESSING
    if film.canceled:
        state = AssetState.CANCELED
    if film.error:
        state = AssetState.FAILED
    growth = film.growth
    if growth is None or state in {AssetState.FAILED, AssetState.CANCELED}:
        return Standing(state, False, 0.0, film.error, (), ())
    views = tuple(_view(rendition, growth.count, growth.count + 1) for rendition in growth.plan.renditions)
    return Standing(state, True, 0.0, None, growth.plan.warnings, views)


def report(film: Film, standing: Standing) -> MediaReport:
    """What the catalog is told."""
    plan = film.plan or (film.growth.plan if film.growth is not None else None)
    return MediaReport(
        asset_id=film.asset_id,
        revision=film.revision,
        state=standing.state,
        playable=standing.playable,
        progress=standing.progress,
        duration=plan.duration if plan else None,
        width=plan.width if plan else None,
        height=plan.height if plan else None,
        source=_mode(plan) if plan else None,
        tracks=plan.tracks if plan else (),
        renditions=standing.renditions,
        warnings=standing.warnings,
        error=standing.error,
        poster_key=film.poster_key,
    )


def presentation(film: Film) -> Presentation | None:
    """The film's timeline; None when it has none."""
    if film.plan is None and film.growth is not None and not film.canceled:
        return _growing(film.asset_id, film.growth)
    if film.plan is None or film.plan_id is None:
        return None
    plan_id = film.plan_id
    return Presentation(
        asset_id=film.asset_id,
        plan_id=plan_id,
        duration=film.plan.duration,
        renditions=tuple(_planned(film.asset_id, plan_id, rendition) for rendition in film.plan.renditions),
        poster_key=film.poster_key,
        captions=tuple(
            CaptionPlan(
                name=track.name,
                key=caption_key(film.asset_id, plan_id, track.name),
                language=track.language,
                label=track.label,
                default=track.default,
                forced=track.forced,
            )
            for track in film.plan.captions
        ),
        storyboard=film.plan.storyboard,
        source=SourcePlan(index_key=index_key(film.asset_id, plan_id), parts=film.plan.parts)
        if film.plan.parts
        else None,
    )


def _growing(asset_id: str, growth: Growth) -> Presentation:
    """What is there of a film that is still being uploaded: each rendition as far as it is listed."""
    planned = growth.plan.renditions
    listed = [replace(r, boundaries=r.boundaries[: growth.count + 1]) for r in planned]
    longest = max((end - begin) / r.timescale for r in planned for begin, end in pairwise(r.boundaries))
    return Presentation(
        asset_id=asset_id,
        plan_id=growth.plan_id,
        duration=max(r.boundaries[-1] / r.timescale for r in listed),
        renditions=tuple(_planned(asset_id, growth.plan_id, rendition) for rendition in listed),
        source=SourcePlan(index_key=growth.indexes[0], parts=growth.parts, announced=growth.size),
        growing=Growing(target_s=max(1, int(longest + 0.5))),
    )


def folder(asset_id: str, plan_id: str, rendition: str) -> str:
    """Where a rendition's objects lie, with a slash at the end."""
    return f"assets/{asset_id}/{plan_id}/{rendition}/"


def init_key(asset_id: str, plan_id: str, rendition: str) -> str:
    """The storage key of a rendition's init segment."""
    return f"{folder(asset_id, plan_id, rendition)}init.mp4"


def index_key(asset_id: str, plan_id: str) -> str:
    """Below which key the sample index of what passes through lies (`packaging.indexes`)."""
    return f"assets/{asset_id}/{plan_id}/index"


def remuxed_key(asset_id: str, plan_id: str, name: int | str) -> str:
    """The storage key of a part of what the upload was written out to."""
    return f"assets/{asset_id}/{plan_id}/{REMUXED}/{name}"


def growing_key(asset_id: str, plan_id: str, name: str) -> str:
    """The storage key of something that is kept of a film only while it arrives; without a name, what all of them begin with."""
    return f"assets/{asset_id}/{plan_id}/growing/{name}"


def agrees(known: Growth, plan: MediaPlan, count: int) -> bool:
    """Whether a later plan, of which so many segments are there, leaves all as it is that was listed."""
    if count < known.count:
        return False
    before = {r.name: (r.init, r.timescale, r.boundaries[: known.count + 1]) for r in known.plan.renditions}
    after = {r.name: (r.init, r.timescale, r.boundaries[: known.count + 1]) for r in plan.renditions}
    return before == {name: after.get(name) for name in before}


def caption_key(asset_id: str, plan_id: str, name: str) -> str:
    """The storage key of a caption track."""
    return f"{folder(asset_id, plan_id, 'captions')}{name}.vtt"


def _planned(asset_id: str, plan_id: str, rendition: PlannedRendition) -> RenditionPlan:
    return RenditionPlan(
        name=rendition.name,
        kind=rendition.kind,
        codecs=rendition.codecs,
        timescale=rendition.timescale,
        boundaries=rendition.boundaries,
        bandwidth=rendition.bandwidth,
        init_key=init_key(asset_id, plan_id, rendition.name),
        width=rendition.width,
        height=rendition.height,
        frame_rate=rendition.frame_rate,
        channels=rendition.channels,
        sample_rate=rendition.sample_rate,
        language=rendition.language,
        label=rendition.label,
        default=rendition.default,
        track=rendition.track,
        passthrough=rendition.passthrough,
    )


def _mode(plan: MediaPlan) -> SourceMode:
    return SourceMode("passthrough" if len(plan.encoded) < len(plan.renditions) else "encode", plan.reason)


def _view(rendition: PlannedRendition, encoded: int, expected: int) -> Rendition:
    rate = rendition.frame_rate
    return Rendition(
        name=rendition.name,
        kind=rendition.kind,
        codecs=rendition.codecs,
        bandwidth=rendition.bandwidth,
        width=rendition.width,
        height=rendition.height,
        frame_rate=rate[0] / rate[1] if rate else None,
        language=rendition.language,
        state="ready" if encoded >= expected else "partial" if encoded else "pending",
    )
