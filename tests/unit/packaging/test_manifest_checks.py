"""Our manifests keep the rules, over films of every shape; and the checks that say so notice what breaks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.contracts.transcoder import Presentation
from streamgate.domain.asset import Failure
from streamgate.media.sandbox import Sandbox
from streamgate.packaging import dash, hls
from streamgate.plugins.transcoder.standing import presentation
from streamgate.plugins.transcoder.store import Film
from tests.support.encoding import plan
from tests.support.films import film
from tests.support.manifest_checks import Broken, check_hls, check_master, check_media, check_mpd
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
        texts[f"captions/{caption.name}.m3u8"] = hls.caption_playlist(caption, film.duration)
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
    check_mpd(dash.manifest(found))


MASTER = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="en",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,URI="audio-1/playlist.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=950000,CODECS="avc1.4D401E,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970,AUDIO="audio"
360p/playlist.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=800000,CODECS="avc1.4D401E",RESOLUTION=640x360,URI="360p/iframes.m3u8"
"""
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
        (MEDIA, "#EXT-X-TARGETDURATION:4", "#EXT-X-TARGETDURATION:3"),
        (MEDIA, "#EXT-X-TARGETDURATION:4\n", ""),
        (MEDIA, "#EXT-X-ENDLIST\n", ""),
        (MEDIA, "#EXTINF:2.500000,\n", ""),
        (MEDIA, "4.000000,", "4.000000"),
        (MEDIA, "1.m4s", "0.m4s"),
        (MEDIA, "VERSION:7", "VERSION:5"),
        (MEDIA, "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-MEDIA-SEQUENCE:1"),
    ],
)
def test_a_broken_playlist_is_noticed(text: str, replaced: str, by: str) -> None:
    check = check_master if text is MASTER else check_media
    check(text)
    assert replaced in text
    with pytest.raises(Broken):
        check(text.replace(replaced, by, 1))


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ('bandwidth="', 'bandwidth="0" x="'),
        ('codecs="avc1', 'codecs="h264'),
        ("mediaPresentationDuration=", "x="),
        (' d="', ' d="9'),
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
