"""DASH manifests: well-formed, complete, exact, and over the same addresses as HLS."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streamgate.contracts.transcoder import Presentation, RenditionPlan
from streamgate.packaging.dash import manifest

MPD = "{urn:mpeg:dash:schema:mpd:2011}"
LOW = RenditionPlan(
    name="360p", kind="video", codecs="avc1.4D401E", timescale=30000, boundaries=(0, 120120, 240240, 250250),
    bandwidth=800_000, init_key="x/init.mp4", width=640, height=360, frame_rate=(30000, 1001),
)  # fmt: skip
HIGH = msgspec.structs.replace(LOW, name="1080p", codecs="avc1.640028", bandwidth=5_500_000, width=1920, height=1080)
GERMAN = RenditionPlan(
    name="audio-1", kind="audio", codecs="mp4a.40.2", timescale=48000, boundaries=(0, 192512, 400384), bandwidth=140_000,
    init_key="y/init.mp4", channels=2, sample_rate=48000, language="deu", label='<Deutsch & "mehr">', default=True,
)  # fmt: skip


def read(*renditions: RenditionPlan, duration: float = 8.341667) -> ET.Element:
    return ET.fromstring(manifest(Presentation(asset_id="a", plan_id="p", duration=duration, renditions=renditions)))


def test_each_coding_of_a_track_is_a_set_of_its_own() -> None:
    german = msgspec.structs.replace(GERMAN, track=1)
    opus = msgspec.structs.replace(german, name="audio-1-opus", codecs="opus")
    sets = read(LOW, german, opus).findall(f".//{MPD}AdaptationSet")
    assert [[r.attrib["id"] for r in found.iter(f"{MPD}Representation")] for found in sets] == [
        ["360p"], ["audio-1"], ["audio-1-opus"]
    ]  # fmt: skip
    assert [found.get("lang") for found in sets] == [None, "deu", "deu"]


def spans(template: ET.Element) -> list[int]:
    """The boundaries that a SegmentTimeline means."""
    found: list[int] = []
    for entry in template.iter(f"{MPD}S"):
        time, duration = int(entry.attrib["t"]), int(entry.attrib["d"])
        assert not found or found[-1] == time
        found = found or [time]
        for _ in range(int(entry.get("r", "0")) + 1):
            found.append(found[-1] + duration)
    return found


def test_a_film_has_one_set_of_pictures_and_one_per_sound() -> None:
    root = read(LOW, HIGH, GERMAN)
    assert root.attrib["type"] == "static"
    assert root.attrib["mediaPresentationDuration"] == "PT8.341667S"
    video, audio = root.iter(f"{MPD}AdaptationSet")
    assert (video.attrib["mimeType"], video.attrib["maxHeight"]) == ("video/mp4", "1080")
    assert [r.attrib["id"] for r in video.iter(f"{MPD}Representation")] == ["360p", "1080p"]
    assert [r.attrib["frameRate"] for r in video.iter(f"{MPD}Representation")] == ["30000/1001"] * 2
    assert (audio.attrib["lang"], audio.findtext(f"{MPD}Label")) == ("deu", '<Deutsch & "mehr">')
    (sound,) = audio.iter(f"{MPD}Representation")
    assert (sound.attrib["audioSamplingRate"], sound.attrib["codecs"]) == ("48000", "mp4a.40.2")
    for template in root.iter(f"{MPD}SegmentTemplate"):
        assert template.attrib["media"] == "$RepresentationID$/$Number$.m4s"
        assert template.attrib["startNumber"] == "0"


def test_sound_alone_is_a_film_too() -> None:
    (only,) = read(GERMAN).iter(f"{MPD}AdaptationSet")
    assert only.attrib["contentType"] == "audio"


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.integers(0, 3))
def test_the_timeline_is_exactly_the_plans(durations: list[int], start: int) -> None:
    boundaries = [start]
    for duration in durations:
        boundaries.append(boundaries[-1] + duration)
    root = read(msgspec.structs.replace(LOW, boundaries=tuple(boundaries)))
    (template,) = root.iter(f"{MPD}SegmentTemplate")
    assert spans(template) == boundaries
    assert template.attrib["timescale"] == "30000"


def test_renditions_that_count_in_other_ticks_have_timelines_of_their_own() -> None:
    boundaries = tuple(tick // 2 for tick in LOW.boundaries)
    source = msgspec.structs.replace(LOW, name="source", bandwidth=3_000_000, timescale=15000, boundaries=boundaries)
    adaptation = next(read(source, LOW, HIGH).iter(f"{MPD}AdaptationSet"))
    assert adaptation.find(f"{MPD}SegmentTemplate") is None
    found = {r.attrib["id"]: next(r.iter(f"{MPD}SegmentTemplate")) for r in adaptation.iter(f"{MPD}Representation")}
    assert list(found) == ["360p", "source", "1080p"]
    assert (found["source"].attrib["timescale"], spans(found["source"])) == ("15000", list(boundaries))
    assert (found["1080p"].attrib["timescale"], spans(found["1080p"])) == ("30000", list(LOW.boundaries))
