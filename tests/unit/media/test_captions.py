"""Text subtitles become WebVTT on the film's clock, and the storyboard shows the film."""

from __future__ import annotations

import io
import itertools
import re
from fractions import Fraction
from pathlib import Path

import av
import pytest

from streamgate.media.captions import Cue, cue_text, webvtt
from streamgate.media.languages import bcp47
from streamgate.media.sandbox import Sandbox
from streamgate.media.storyboard import layout
from streamgate.packaging.thumbnails import storyboard_vtt
from tests.support.encoding import FileSource, plan
from tests.support.films import film
from tests.support.spoken import CAPTIONS, spoken_film


def line(text: str) -> str:
    return f"0,0,Default,,0,0,0,,{text}"


@pytest.mark.parametrize(
    ("ass", "expected"),
    [
        ("plain", "plain"),
        ("one, two, three", "one, two, three"),
        ("a\\Nb\\nc", "a\nb\nc"),
        ("{\\b1}bold{\\b0} not", "<b>bold</b> not"),
        ("{\\i1}a{\\b1}b{\\i0}c", "<i>a<b>b</b></i><b>c</b>"),
        ("{\\an8}{\\c&HFFFFFF&}up", "up"),
        ("1 < 2 & 3 > 2 --> x", "1 &lt; 2 &amp; 3 &gt; 2 --&gt; x"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("{\\p1}m 0 0 l 100 0{\\p0}text", "text"),
        ("\\N\\Na\\N\\N\\Nb", "a\nb"),
        ("a\x00b\u202e", "ab"),
        ("{\\i1}{\\i0}  ", ""),
        ("", ""),
    ],
)
def test_what_webvtt_can_say_is_kept_and_the_rest_is_harmless(ass: str, expected: str) -> None:
    assert cue_text(line(ass)) == expected


def test_cues_lie_on_the_films_clock() -> None:
    cues = [
        Cue(Fraction(11), Fraction(13), "late"),
        Cue(Fraction(9), Fraction(21, 2), "first"),
        Cue(Fraction(5), Fraction(7), "before"),
    ]
    text = webvtt(cues, Fraction(10))
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nfirst\n\n00:00:01.000 --> 00:00:03.000\nlate\n\n"
    assert "01:00:00.000 --> 01:00:01.500" in webvtt([Cue(Fraction(3600), Fraction(7203, 2), "x")], Fraction(0))


def test_languages_have_one_name() -> None:
    assert [bcp47(text) for text in ("eng", "ger", "deu", "pt-BR", "zho", "und", "", None, "x y", "123")] == [
        "en", "de", "de", "pt-BR", "zh", None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mkv", "srt"), ("mkv", "ass"), ("mkv", "webvtt"), ("mp4", "mov_text"), ("mov", "mov_text")],
)
async def test_subtitle_tracks_become_captions(sandbox: Sandbox, tmp_path: Path, container: str, codec: str) -> None:
    found = await plan(sandbox, spoken_film(tmp_path, container=container, subtitle_codec=codec, seconds=8))
    assert [(c.name, c.language, c.default) for c in found.captions] == [("en", "en", False), ("de", "de", False)]
    english = found.captions[0].vtt.decode()
    times = re.findall(r"00:00:([\d.]+) --> 00:00:([\d.]+)", english)
    # In Matroska the sound begins up to a frame before time 0, and so does the film.
    wanted = [(start, end) for start, end, _ in CAPTIONS]
    assert [(float(a), float(b)) for a, b in times] == [pytest.approx(pair, abs=0.025) for pair in wanted]
    assert "there" in english
    assert "&amp; welcome" in english
    assert "Second line\nof two" in english
    assert "Guten Tag" in found.captions[1].vtt.decode()
    assert [r.language for r in found.renditions if r.kind == "audio"] == ["en", "de"]
    assert [w.code for w in found.warnings] == []


async def test_a_sheet_shows_the_film_at_its_times(sandbox: Sandbox, films: Path) -> None:
    source = film(films, seconds=13, width=640, height=360)
    made = await plan(sandbox, source)
    assert made.storyboard is not None
    board = made.storyboard
    assert (board.count, board.interval_ms, board.width, board.height, board.sheets) == (7, 2000, 160, 90, 1)
    data = await sandbox.sheet(FileSource(source), made, 0, eager=False, timeout_s=30)
    with av.open(io.BytesIO(data)) as picture:
        frame = next(picture.decode(video=0)).to_ndarray(format="gray")
    assert frame.shape == (180, 800)
    tiles = [frame[y : y + 90, x : x + 160] for y in (0, 90) for x in range(0, 800, 160)]
    assert all(tile[:10, :15].mean() > 200 for tile in tiles[:7]), "the marker is in the corner of every picture"
    assert all(tile.mean() < 20 for tile in tiles[7:]), "places without a picture are black"
    assert all(abs(a.astype(int) - b).mean() > 2 for a, b in itertools.pairwise(tiles[:7]))
    with pytest.raises(ValueError, match="no such sheet"):
        await sandbox.sheet(FileSource(source), made, 1, eager=False, timeout_s=30)


@pytest.mark.parametrize(
    ("size", "tile"), [((1920, 1080), (160, 90)), ((1080, 1920), (90, 160)), ((100, 100), (160, 160))]
)
@pytest.mark.parametrize("duration", [0.04, 7.0, 400.0, 7200.0, 43_200.0])
def test_a_storyboard_covers_the_film_with_a_bounded_number_of_pictures(
    size: tuple[int, int], tile: tuple[int, int], duration: float
) -> None:
    board = layout(*size, duration)
    assert (board.width, board.height) == tile
    assert 1 <= board.count <= 200
    assert (board.count - 1) * board.interval_ms < duration * 1000 <= board.count * board.interval_ms
    text = storyboard_vtt(board, duration)
    assert text.count("-->") == board.count
    assert text.count(f"storyboard/{board.sheets - 1}.jpg#xywh=") >= 1
    assert f"storyboard/{board.sheets}.jpg" not in text
