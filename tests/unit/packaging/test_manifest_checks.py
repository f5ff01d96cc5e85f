"""Our manifests keep the rules, over films of every shape; and the checks that say so notice what breaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from streamgate.contracts.transcoder import Presentation
from streamgate.domain.asset import Failure
from streamgate.media.sandbox import Sandbox
from streamgate.packaging import dash, hls
from streamgate.plugins.transcoder.standing import presentation
from streamgate.plugins.transcoder.store import Film
from tests.support.encoding import plan
from tests.support.films import film
from tests.support.manifest_checks import MPD, Broken, check_hls, check_master, check_media, check_mpd
from tests.support.spoken import spoken_film

SHAPES: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "no sound": {"audio": None},
    "sound alone": {"video": False, "seconds": 9},
    "upright": {"width": 360, "height": 640},
    "turned": {"rotation": 90},
    "uneven times": {"jitter": True, "seconds": 9},
    "cinema": {"fps": 24, "seconds": 13},
    "fast": {"fps": 120, "seconds": 5},
    "very short": {"seconds": 0.2},
    "mono": {"audio": "mono"},
}


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox.open(tmp_path) as opened:
        yield opened


async def presented(sandbox: Sandbox, path: Path) -> Presentation:
    error: Failure | None = None
    made = Film("ast_1", None, "pln_1", await plan(sandbox, path), False, error, None, 0, False, 1, 0)
    found = presentation(made)
    assert found is not None
    return found


def addresses(film: Presentation) -> dict[str, str]:
    """Every text that is served of a film, by its path."""
    texts = {"master.m3u8": hls.master_playlist(film)}
    for rendition in film.renditions:
        texts[f"{rendition.name}/playlist.m3u8"] = hls.media_playlist(rendition)
        if rendition.kind == "video":
            texts[f"{rendition.name}/iframes.m3u8"] = hls.iframe_playlist(rendition)
    for caption in film.captions:
        texts[f"captions/{caption.name}/playlist.m3u8"] = hls.caption_playlist(caption, film.duration)
    return texts


@pytest.mark.parametrize("shape", SHAPES)
async def test_manifests_of_a_film_keep_the_rules(sandbox: Sandbox, tmp_path: Path, shape: str) -> None:
    found = await presented(sandbox, film(tmp_path, **SHAPES[shape]))
    texts = addresses(found)
    seen = check_hls("master.m3u8", texts.__getitem__)
    assert set(seen) == set(texts) - {"master.m3u8"}
    for media in seen.values():
        assert media.duration == pytest.approx(found.duration, abs=0.3)
    check_mpd(dash.manifest(found))


async def test_sound_alone_in_two_languages_has_two_groups_of_the_same_members(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    found = await presented(sandbox, spoken_film(tmp_path, seconds=8))
    sound = [rendition for rendition in found.renditions if rendition.kind == "audio"]
    low = [replace(rendition, name=f"{rendition.name}-64k", bandwidth=90_000) for rendition in sound]
    both = tuple(rendition for pair in zip(low, sound, strict=True) for rendition in pair)
    alone = replace(found, renditions=both, storyboard=None)
    texts = addresses(alone)
    assert set(check_hls("master.m3u8", texts.__getitem__)) == set(texts) - {"master.m3u8"}
    master = check_master(texts["master.m3u8"])
    assert [(m["GROUP-ID"], m["LANGUAGE"]) for m in master.media if m["TYPE"] == "AUDIO"] == [
        ("audio-1", "en"),
        ("audio-1", "de"),
        ("audio-2", "en"),
        ("audio-2", "de"),
    ]
    assert [(v["CODECS"], v["AUDIO"], v["SUBTITLES"]) for v, _ in master.variants] == [
        ("mp4a.40.2", "audio-1", "subs"),
        ("mp4a.40.2", "audio-2", "subs"),
    ]
    root = check_mpd(dash.manifest(replace(alone, duration=sound[0].boundaries[-1] / sound[0].timescale)))
    assert [len(a.findall(f"{MPD}Representation")) for a in root.iter(f"{MPD}AdaptationSet")] == [2, 2, 1, 1]


async def test_captions_of_one_language_are_not_all_chosen_by_themselves(sandbox: Sandbox, tmp_path: Path) -> None:
    found = await presented(sandbox, spoken_film(tmp_path, seconds=8))
    plain = found.captions[0]
    again = replace(plain, name="en-2", key="k2", label="en")
    forced = replace(plain, name="en-3", key="k3", forced=True, default=True)
    odd = replace(plain, name="fr", key="k4", language="fr", label="en (2)")
    texts = addresses(replace(found, captions=(plain, odd, again, forced)))
    check_hls("master.m3u8", texts.__getitem__)
    members = [m for m in check_master(texts["master.m3u8"]).media if m["TYPE"] == "SUBTITLES"]
    assert [(m["URI"].split("/")[1], m["DEFAULT"], m["AUTOSELECT"], m["FORCED"]) for m in members] == [
        ("en", "NO", "YES", "NO"),
        ("fr", "NO", "YES", "NO"),
        ("en-2", "NO", "NO", "NO"),
        ("en-3", "YES", "YES", "YES"),
    ]
    assert len({m["NAME"] for m in members}) == 4


async def test_manifests_of_a_film_in_two_languages_keep_the_rules(sandbox: Sandbox, tmp_path: Path) -> None:
    found = await presented(sandbox, spoken_film(tmp_path, seconds=8))
    texts = addresses(found)
    assert set(check_hls("master.m3u8", texts.__getitem__)) == set(texts) - {"master.m3u8"}
    master = check_master(texts["master.m3u8"])
    assert [(m["TYPE"], m["LANGUAGE"], m["DEFAULT"]) for m in master.media] == [
        ("SUBTITLES", "en", "NO"),
        ("SUBTITLES", "de", "NO"),
        ("AUDIO", "en", "YES"),
        ("AUDIO", "de", "NO"),
    ]
    assert [variant["SUBTITLES"] for variant, _ in master.variants] == ["subs", "subs"]
    assert texts["captions/en/playlist.m3u8"].splitlines()[-2:] == ["../en.vtt", "#EXT-X-ENDLIST"]
    check_mpd(dash.manifest(found))


MASTER = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="en",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,URI="audio-1/playlist.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=950000,CODECS="avc1.4D401E,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970,AUDIO="audio"
360p/playlist.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=800000,CODECS="avc1.4D401E",RESOLUTION=640x360,URI="360p/iframes.m3u8"
"""
MEMBER = (
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="de",LANGUAGE="de",DEFAULT=NO,AUTOSELECT=YES,'
    'URI="audio-2/playlist.m3u8"\n'
)
MEDIA = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-MAP:URI="init.mp4"
#EXTINF:4.000000,
0.m4s
#EXTINF:2.500000,
1.m4s
#EXT-X-ENDLIST
"""


@pytest.mark.parametrize(
    ("text", "replaced", "by"),
    [
        (MASTER, "#EXTM3U\n", ""),
        (MASTER, "BANDWIDTH=950000,", ""),
        (MASTER, "BANDWIDTH=950000", "BANDWIDTH=9.5"),
        (MASTER, 'CODECS="avc1.4D401E,mp4a.40.2",', ""),
        (MASTER, "avc1.4D401E,mp4a", "avc1,mp4a"),
        (MASTER, 'AUDIO="audio"', 'AUDIO="other"'),
        (MASTER, ',AUDIO="audio"', ""),
        (MASTER, "640x360,FRAME", "640*360,FRAME"),
        (MASTER, 'NAME="en",', ""),
        (MASTER, "AUTOSELECT=YES", "AUTOSELECT=NO"),
        (MASTER, "360p/playlist.m3u8\n", ""),
        (MASTER, ',URI="360p/iframes.m3u8"', ""),
        (MASTER, "#EXT-X-I-FRAME", "#EXTINF:4,\n#EXT-X-I-FRAME"),
        (MASTER, "#EXT-X-I-FRAME-STREAM-INF", "#EXT-X-IFRAME-STREAM-INF"),
        (MASTER, 'CODECS="avc1.4D401E",R', 'CODECS="avc1.4D401E,mp4a.40.2",R'),
        (MASTER, 'CODECS="avc1.4D401E,mp4a.40.2"', 'CODECS="avc1.4D401E"'),
        (MASTER, "mp4a.40.2", "mp4a.40.2,mp4a.40.2"),
        (MASTER, "RESOLUTION=640x360,FRAME", "FRAME"),
        (MASTER, 'LANGUAGE="en"', 'LANGUAGE="English!"'),
        (MASTER, "TYPE=AUDIO,", "TYPE=AUDIO,TYPE=AUDIO,"),
        (MASTER, 'iframes.m3u8"\n', 'iframes.m3u8"'),
        (MASTER, "#EXT-X-STREAM-INF", MEMBER.replace('"de"', '"en"', 1) + "#EXT-X-STREAM-INF"),
        (MASTER, "#EXT-X-STREAM-INF", MEMBER.replace('LANGUAGE="de"', 'LANGUAGE="en"') + "#EXT-X-STREAM-INF"),
        (MASTER, "#EXT-X-STREAM-INF", MEMBER.replace("DEFAULT=NO", "DEFAULT=YES") + "#EXT-X-STREAM-INF"),
        (MASTER, "#EXT-X-STREAM-INF", MEMBER.replace("audio-2", "audio-1") + "#EXT-X-STREAM-INF"),
        (MASTER, "#EXT-X-STREAM-INF", MEMBER.replace('="audio"', '="more"') + "#EXT-X-STREAM-INF"),
        (MASTER, "#EXT-X-I-FRAME", '#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS="mp4a.40.2"\na.m3u8\n#EXT-X-I-FRAME'),
        (MEDIA, "#EXT-X-TARGETDURATION:4", "#EXT-X-TARGETDURATION:3"),
        (MEDIA, "#EXT-X-TARGETDURATION:4\n", ""),
        (MEDIA, "#EXT-X-ENDLIST\n", ""),
        (MEDIA, "#EXTINF:2.500000,\n", ""),
        (MEDIA, "4.000000,", "4.000000"),
        (MEDIA, "1.m4s", "0.m4s"),
        (MEDIA, "VERSION:7", "VERSION:5"),
        (MEDIA, "VERSION:7", "VERSION:seven"),
        (MEDIA, '#EXT-X-MAP:URI="init.mp4"\n', ""),
        (MEDIA, 'URI="init.mp4"', 'BYTERANGE="1@0"'),
        (MEDIA, '#EXT-X-MAP:URI="init.mp4"\n#EXTINF:4.000000,\n', '#EXTINF:4.000000,\n#EXT-X-MAP:URI="init.mp4"\n'),
        (MEDIA, "#EXTINF:2", "#EXT-X-STREAM-INF:BANDWIDTH=1\n#EXTINF:2"),
        (MEDIA, "#EXTINF:2", "#EXT-X-DISCONTINUTY\n#EXTINF:2"),
        (MEDIA, "PLAYLIST-TYPE:VOD", "PLAYLIST-TYPE:EVENT"),
        (MEDIA, "0.m4s\n", "0.m4s \n"),
        (MEDIA, "#EXTINF:4.0", "#EXTINF:-4.0"),
        (MEDIA, "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-MEDIA-SEQUENCE:1"),
    ],
)
def test_a_broken_playlist_is_noticed(text: str, replaced: str, by: str) -> None:
    check = check_master if text is MASTER else check_media
    check(text)
    assert replaced in text
    with pytest.raises(Broken):
        check(text.replace(replaced, by, 1))


def test_a_member_more_is_no_mistake() -> None:
    assert len(check_master(MASTER.replace("#EXT-X-STREAM-INF", MEMBER + "#EXT-X-STREAM-INF", 1)).media) == 2


IFRAMES = MEDIA.replace("#EXT-X-MAP", "#EXT-X-I-FRAMES-ONLY\n#EXT-X-MAP").replace(".m4s", ".iframe.m4s")
WHOLE = {
    "f/master.m3u8": MASTER,
    "f/360p/playlist.m3u8": MEDIA,
    "f/audio-1/playlist.m3u8": MEDIA,
    "f/360p/iframes.m3u8": IFRAMES,
}


@pytest.mark.parametrize(
    ("path", "replaced", "by"),
    [
        ("f/360p/playlist.m3u8", "1.m4s", "../../1.m4s"),
        ("f/360p/playlist.m3u8", "1.m4s", "%2e%2e/%2e%2e/1.m4s"),
        ("f/360p/playlist.m3u8", "1.m4s", "/1.m4s"),
        ("f/360p/playlist.m3u8", "init.mp4", "https://a.example/init.mp4"),
        ("f/360p/iframes.m3u8", "#EXT-X-I-FRAMES-ONLY\n", ""),
        ("f/360p/iframes.m3u8", "EXTINF:2.5", "EXTINF:2.4"),
        ("f/360p/playlist.m3u8", "#EXT-X-MAP", "#EXT-X-I-FRAMES-ONLY\n#EXT-X-MAP"),
        ("f/audio-1/playlist.m3u8", "#EXT-X-ENDLIST\n", ""),
        ("f/master.m3u8", "360p/playlist.m3u8", "https://a.example/playlist.m3u8"),
    ],
)
def test_a_film_with_a_broken_part_is_noticed(path: str, replaced: str, by: str) -> None:
    assert set(check_hls("f/master.m3u8", WHOLE.__getitem__)) == set(WHOLE) - {"f/master.m3u8"}
    assert replaced in WHOLE[path]
    broken = WHOLE | {path: WHOLE[path].replace(replaced, by, 1)}
    with pytest.raises(Broken):
        check_hls("f/master.m3u8", broken.__getitem__)


def test_what_a_playlist_names_has_to_be_there() -> None:
    asked: list[str] = []
    check_hls("f/master.m3u8", WHOLE.__getitem__, lambda address: not asked.append(address))
    assert {"f/360p/init.mp4", "f/360p/1.m4s", "f/audio-1/0.m4s", "f/360p/0.iframe.m4s"} <= set(asked)
    with pytest.raises(Broken, match=r"f/360p/1\.m4s"):
        check_hls("f/master.m3u8", WHOLE.__getitem__, lambda address: address != "f/360p/1.m4s")


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ('bandwidth="', 'bandwidth="0" x="'),
        ('codecs="avc1', 'codecs="h264'),
        ("mediaPresentationDuration=", "x="),
        (' d="', ' d="9'),
        (' d="', ' d="-'),
        (' t="0"', ' t="7"'),
        ("</SegmentTimeline>", '<S t="1" d="4"/></SegmentTimeline>'),
        (' timescale="', ' timescale="0" x="'),
        (' startNumber="0"', ' startNumber="first"'),
        ('mediaPresentationDuration="PT', 'mediaPresentationDuration="PT1M'),
        ('mediaPresentationDuration="PT', 'mediaPresentationDuration="'),
        ('minBufferTime="PT', 'minBufferTime="'),
        (' contentType="video"', ""),
        (' mimeType="video/mp4"', ' mimeType="audio/mp4"'),
        (' width="', ' width="9'),
        (' frameRate="', ' frameRate="0'),
        (' audioSamplingRate="48000"', ""),
        ("<AudioChannelConfiguration", "<Channels"),
        ("$RepresentationID$/init.mp4", "init.mp4"),
        ('<AdaptationSet id="1"', '<AdaptationSet id="0"'),
        ('<Period id="0" start="PT0S"', '<Period id="0" start="PT1S"'),
        ("</Period>", "</Period><Period/>"),
        ("</MPD>", ""),
        ("$Number$", "$Time$"),
        ('profiles="', 'x="'),
        ('id="120p"', 'id="240p"'),
    ],
)
async def test_a_broken_manifest_is_noticed(sandbox: Sandbox, tmp_path: Path, replaced: str, by: str) -> None:
    text = dash.manifest(await presented(sandbox, film(tmp_path)))
    check_mpd(text)
    assert replaced in text
    with pytest.raises(Broken):
        check_mpd(text.replace(replaced, by, 1))
