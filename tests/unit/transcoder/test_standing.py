"""Where a film stands is derived from what is there, whatever the order in which it came."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.domain.asset import AssetState, Failure, FailureCode
from streamgate.domain.identity import Prefix, new_id
from streamgate.media.cuts import runs
from streamgate.media.model import AudioRung, MediaPlan, PlannedRendition, VideoRung
from streamgate.plugins.transcoder.standing import Standing, chunk_of, presentation, report, segments, stand, takes_part
from streamgate.plugins.transcoder.store import Film

RUNG = VideoRung(
    width=2,
    height=2,
    frame_rate=(30, 1),
    crf=23,
    maxrate=1,
    bufsize=1,
    preset="x",
    profile="main",
    level="3.0",
    gop=1,
    threads=1,
)
SOUND = AudioRung(sample_rate=48000, channels=2, bitrate=1, stream_index=1)


def rendition(name: str, count: int, kind: str = "video") -> PlannedRendition:
    return PlannedRendition(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        codecs="",
        timescale=1,
        boundaries=tuple(range(0, 4 * count + 1, 4)),
        bandwidth=1,
        config=b"",
        init=b"",
        rung=RUNG if kind == "video" else SOUND,
    )


def film(count: int = 10, sound: int = 10, **changes: object) -> Film:
    plan = MediaPlan(
        tracks=(),
        container="mp4",
        duration=4.0 * count,
        width=2,
        height=2,
        renditions=(rendition("240p", count), rendition("360p", count), rendition("audio-1", sound, "audio")),
        chunks=runs(max(count, sound), 3),
        recipe=b"",
    )
    values: dict[str, object] = {
        "asset_id": new_id(Prefix.ASSET),
        "owner": "admin",
        "plan_id": new_id(Prefix.PLAN),
        "plan": plan,
        "canceled": False,
        "error": None,
        "poster_key": None,
        "poster_wish": 0,
        "settled": False,
        "revision": 3,
        "reported": 0,
    }
    return Film(**(values | changes))  # type: ignore[arg-type]


def all_of(made: Film) -> dict[str, int]:
    assert made.plan is not None
    return {r.name: sum(takes_part(r, chunk) for chunk in made.plan.chunks) for r in made.plan.renditions}


@given(st.integers(1, 40), st.integers(1, 60), st.data())
def test_a_film_is_ready_exactly_when_nothing_is_missing(count: int, sound: int, data: st.DataObject) -> None:
    made = film(count, sound)
    expected = all_of(made)
    done, missing = {}, 0
    for name, total in expected.items():
        encoded = data.draw(st.integers(0, total))
        failed = data.draw(st.integers(0, total - encoded))
        done[name] = (encoded, failed)
        missing += total - encoded - failed
    anything = any(encoded for encoded, _ in done.values())
    found = stand(made, done, begun=False)
    if missing:
        assert found.state is AssetState.PROCESSING
    else:
        assert found.state is (AssetState.READY if anything else AssetState.FAILED)
    assert 0 <= found.progress <= 1
    assert (found.error is None) == (found.state is not AssetState.FAILED)
    partly = anything and any(failed for _, failed in done.values())
    assert ("parts_missing" in {warning.code for warning in found.warnings}) == partly
    assert stand(msgspec_replace(made, canceled=True), done, begun=False).state is (
        AssetState.CANCELED if missing else found.state
    )


def msgspec_replace(made: Film, **changes: object) -> Film:
    import dataclasses

    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_film_plays_as_soon_as_it_has_begun() -> None:
    made = film()
    assert not stand(made, {}, begun=False).playable
    found = stand(made, {"240p": (1, 0)}, begun=True)
    assert (found.playable, found.state) == (True, AssetState.PROCESSING)
    assert [r.state for r in found.renditions] == ["partial", "pending", "pending"]


def test_a_film_whose_ladder_was_dropped_is_ready_and_tells_what_is_not_encoded() -> None:
    found = stand(film(cold=True), {"240p": (1, 0), "audio-1": (10, 0)}, begun=True)
    assert (found.state, found.playable, found.progress, found.error) == (AssetState.READY, True, 1.0, None)
    assert found.renditions[1].state == "pending"
    assert stand(film(cold=True), {"360p": (0, 2)}, begun=False).error is None


def test_a_film_that_was_refused_says_why_and_one_without_a_plan_is_being_looked_at() -> None:
    error = Failure(FailureCode.UNSUPPORTED_CODEC, "No.")
    refused = stand(film(plan=None, plan_id=None, error=error), {}, begun=False)
    assert (refused.state, refused.error, refused.playable) == (AssetState.FAILED, error, False)
    assert stand(film(plan=None, plan_id=None), {}, begun=False).state is AssetState.PROCESSING
    assert stand(film(plan=None, plan_id=None, canceled=True), {}, begun=False).state is AssetState.CANCELED
    assert refused.final


@given(st.integers(1, 200), st.integers(1, 6))
def test_every_segment_has_its_chunk(count: int, per_chunk: int) -> None:
    plan = msgspec.structs.replace(film(count, count).plan, chunks=runs(count, per_chunk))  # type: ignore[type-var]
    assert isinstance(plan, MediaPlan)
    for number in range(count):
        chunk = chunk_of(plan, number)
        assert chunk is not None
        first, end = plan.chunks[chunk]
        assert first <= number < end
    assert chunk_of(plan, count) is None
    assert plan.chunks[0] == (0, 1)
    assert [end for _, end in plan.chunks[:-1]] == [first for first, _ in plan.chunks[1:]]


def test_a_plan_crosses_a_wire_and_back() -> None:
    plan = film().plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=MediaPlan) == plan


def test_reports_and_presentations_say_what_is_planned() -> None:
    made = film(7, 9)
    found = report(made, stand(made, {}, begun=False))
    assert (found.revision, found.duration, len(found.renditions)) == (3, 28.0, 3)
    shown = presentation(made)
    assert shown is not None
    assert [r.init_key for r in shown.renditions] == [
        f"assets/{made.asset_id}/{made.plan_id}/{name}/init.mp4" for name in ("240p", "360p", "audio-1")
    ]
    assert made.plan is not None
    assert [segments(r) for r in made.plan.renditions] == [7, 7, 9]
    assert presentation(film(plan=None, plan_id=None)) is None


@pytest.mark.parametrize("state", list(AssetState))
def test_only_ends_are_final(state: AssetState) -> None:
    standing = Standing(state, False, 0.0, None, (), ())
    assert standing.final == (state in {AssetState.READY, AssetState.FAILED, AssetState.CANCELED})


def passing(*encoded: str) -> Film:
    """A film whose video passes through; of its other renditions those named are encoded."""
    made = film()
    assert made.plan is not None
    source = msgspec.structs.replace(rendition("source", 10), rung=None, passthrough=0)
    others = [r if r.name in encoded else msgspec.structs.replace(r, passthrough=1) for r in made.plan.renditions]
    kept = [r for r in others if r.name in encoded or r.kind == "audio"]
    return msgspec_replace(
        made, plan=msgspec.structs.replace(made.plan, renditions=(source, *kept), reason="As it is.")
    )


def test_a_film_that_passes_through_plays_at_once_and_is_ready_when_its_ladder_is() -> None:
    made = passing("240p")
    assert made.plan is not None
    assert made.plan.opening is None
    found = stand(made, {}, begun=True)
    assert (found.playable, found.state, found.progress) == (True, AssetState.PROCESSING, 0)
    assert [(r.name, r.state) for r in found.renditions] == [
        ("source", "ready"), ("240p", "pending"), ("audio-1", "ready"),
    ]  # fmt: skip
    told = report(made, found).source
    assert told is not None
    assert (told.mode, told.reason) == ("passthrough", "As it is.")
    alone = stand(passing(), {}, begun=True)
    assert (alone.playable, alone.state, alone.progress) == (True, AssetState.READY, 1)
    assert passing("240p", "audio-1").plan.opening == "audio-1"  # type: ignore[union-attr]


def test_a_film_that_passes_through_never_fails_for_what_cannot_be_encoded() -> None:
    made = passing("240p")
    found = stand(made, {"240p": (0, all_of(made)["240p"])}, begun=True)
    assert (found.state, found.error) == (AssetState.READY, None)
    assert [warning.code for warning in found.warnings] == ["parts_missing"]
