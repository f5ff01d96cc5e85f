"""Playlists are complete, exact and safe, whatever a film is called."""

from __future__ import annotations

import re
from fractions import Fraction

import msgspec
import pytest

from streamgate.contracts.transcoder import Presentation, RenditionPlan
from streamgate.packaging.hls import master_playlist, media_playlist

LOW = RenditionPlan(
    name="360p", kind="video", codecs="avc1.4D401E", timescale=30000, boundaries=(0, 120120, 240240, 250250),
    bandwidth=800_000, init_key="x/init.mp4", width=640, height=360, frame_rate=(30000, 1001),
)  # fmt: skip
HIGH = msgspec.structs.replace(LOW, name="1080p", codecs="avc1.640028", bandwidth=5_500_000, width=1920, height=1080)
GERMAN = RenditionPlan(
    name="audio-1", kind="audio", codecs="mp4a.40.2", timescale=48000, boundaries=(0, 192512, 400384), bandwidth=140_000,
    init_key="y/init.mp4", channels=2, sample_rate=48000, language="deu", label="Deutsch",
)  # fmt: skip
ENGLISH = msgspec.structs.replace(GERMAN, name="audio-2", language="eng", label=None, default=True, bandwidth=150_000)


def presentation(*renditions: RenditionPlan) -> Presentation:
    return Presentation(asset_id="a", plan_id="p", duration=8.0, renditions=renditions)


def test_a_film_has_a_variant_per_video_and_one_audio_group() -> None:
    assert master_playlist(presentation(LOW, HIGH, GERMAN, ENGLISH)).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Deutsch",LANGUAGE="deu",DEFAULT=NO,AUTOSELECT=YES,CHANNELS="2",'
        'URI="audio-1/playlist.m3u8"',
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="eng",LANGUAGE="eng",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",'
        'URI="audio-2/playlist.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=950000,CODECS="avc1.4D401E,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970,'
        'AUDIO="audio",CLOSED-CAPTIONS=NONE',
        "360p/playlist.m3u8",
        '#EXT-X-STREAM-INF:BANDWIDTH=5650000,CODECS="avc1.640028,mp4a.40.2",RESOLUTION=1920x1080,FRAME-RATE=29.970,'
        'AUDIO="audio",CLOSED-CAPTIONS=NONE',
        "1080p/playlist.m3u8",
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=800000,CODECS="avc1.4D401E",RESOLUTION=640x360,URI="360p/iframes.m3u8"',
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=5500000,CODECS="avc1.640028",RESOLUTION=1920x1080,URI="1080p/iframes.m3u8"',
    ]


def test_sound_that_is_there_as_opus_too_is_a_second_group() -> None:
    """What every player takes comes first; a track that is not there as Opus is in both."""
    opus = msgspec.structs.replace(GERMAN, name="audio-1-opus", codecs="opus", track=1)
    german, english = (msgspec.structs.replace(r, track=n) for n, r in enumerate((GERMAN, ENGLISH), start=1))
    lines = master_playlist(presentation(LOW, HIGH, german, opus, english)).splitlines()
    groups = [
        re.findall(r'GROUP-ID="([^"]+)".*URI="([^"]+)"', line)[0] for line in lines if line.startswith("#EXT-X-MEDIA")
    ]
    assert groups == [
        ("audio", "audio-1/playlist.m3u8"),
        ("audio", "audio-2/playlist.m3u8"),
        ("audio-opus", "audio-1-opus/playlist.m3u8"),
        ("audio-opus", "audio-2/playlist.m3u8"),
    ]
    variants = [
        re.findall(r'CODECS="([^"]+)".*AUDIO="([^"]+)"', line)[0]
        for line in lines
        if "STREAM-INF" in line and "AUDIO" in line
    ]
    assert variants == [
        ("avc1.4D401E,mp4a.40.2", "audio"),
        ("avc1.640028,mp4a.40.2", "audio"),
        ("avc1.4D401E,opus,mp4a.40.2", "audio-opus"),
        ("avc1.640028,opus,mp4a.40.2", "audio-opus"),
    ]


def test_a_silent_film_names_no_audio() -> None:
    playlist = master_playlist(presentation(LOW))
    assert "AUDIO" not in playlist
    assert 'CODECS="avc1.4D401E"' in playlist


def test_a_film_of_sound_alone_has_one_variant_of_its_default_audio() -> None:
    alone = master_playlist(presentation(GERMAN)).splitlines()
    assert alone[3:] == ['#EXT-X-STREAM-INF:BANDWIDTH=140000,CODECS="mp4a.40.2"', "audio-1/playlist.m3u8"]
    several = master_playlist(presentation(GERMAN, ENGLISH)).splitlines()
    assert several[-2:] == [
        '#EXT-X-STREAM-INF:BANDWIDTH=150000,CODECS="mp4a.40.2",AUDIO="audio"',
        "audio-2/playlist.m3u8",
    ]
    assert sum(line.startswith("#EXT-X-MEDIA:") for line in several) == 2


def test_one_audio_is_the_default_and_two_of_a_language_are_not_both_chosen_by_themselves() -> None:
    first = msgspec.structs.replace(GERMAN, default=False)
    second = msgspec.structs.replace(first, name="audio-3")
    lines = [line for line in master_playlist(presentation(LOW, first, second)).splitlines() if "TYPE=AUDIO" in line]
    assert [("DEFAULT=YES" in line, "AUTOSELECT=YES" in line) for line in lines] == [(True, True), (False, False)]
    names = re.findall(r'NAME="([^"]*)"', "\n".join(lines))
    assert len(set(names)) == 2


def test_a_label_cannot_break_out_of_its_attribute() -> None:
    evil = msgspec.structs.replace(GERMAN, label='x",URI="http://evil/\r\n#EXT-X-ENDLIST', language='d"e')
    playlist = master_playlist(presentation(LOW, evil))
    assert len(playlist.splitlines()) == 7
    assert 'URI="http' not in playlist


def test_a_media_playlist_is_whole_and_its_durations_are_exact() -> None:
    assert media_playlist(LOW).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-TARGETDURATION:4",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MAP:URI="init.mp4"',
        "#EXTINF:4.004000,",
        "0.m4s",
        "#EXTINF:4.004000,",
        "1.m4s",
        "#EXTINF:0.333667,",
        "2.m4s",
        "#EXT-X-ENDLIST",
    ]


def test_durations_do_not_drift_over_hours() -> None:
    ticks = 44100 * 4 + 13
    long = msgspec.structs.replace(GERMAN, timescale=44100, boundaries=tuple(n * ticks for n in range(5401)))
    durations = [Fraction(d) for d in re.findall(r"#EXTINF:([\d.]+),", media_playlist(long))]
    assert len(durations) == 5400
    assert abs(sum(durations) - Fraction(5400 * ticks, 44100)) < Fraction(1, 1_000_000)


@pytest.mark.parametrize(("ticks", "target"), [(449, 4), (450, 5), (10, 1)])
def test_the_target_duration_is_the_longest_segment_rounded(ticks: int, target: int) -> None:
    rendition = msgspec.structs.replace(LOW, timescale=100, boundaries=(0, ticks))
    assert f"#EXT-X-TARGETDURATION:{target}\n" in media_playlist(rendition)


def test_a_presentation_without_renditions_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        master_playlist(presentation())
