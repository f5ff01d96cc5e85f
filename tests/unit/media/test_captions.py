"""Text subtitles become WebVTT on the film's clock, and the storyboard shows the film."""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.media.captions import MAX_CUES, MAX_TEXT, MAX_TRACKS, Cue, cue_text, webvtt
from streamgate.media.languages import bcp47
from streamgate.media.sandbox import Sandbox
from streamgate.media.storyboard import layout
from streamgate.packaging.thumbnails import storyboard_vtt
from tests.support.encoding import FileSource, plan
from tests.support.films import film
from tests.support.spoken import CAPTIONS, captioned_film, spoken_film


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
        ("a\tb\rc\u2028d", "a b c d"),
        ("東\u3000京", "東\u3000京"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\u202bשלום!\u202c", "\u202bשלום!\u202c"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("{\\b700}bold{\\b} not", "<b>bold</b> not"),
        ("{\\i1}a{\\r}b", "<i>a</i>b"),
        ("{\\bord2\\iclip(1,2)\\i0}x", "x"),
        ("{\\i1}{\\i0}x", "x"),
        ("{\\i1}a\\N{\\i0}", "<i>a</i>"),
        ("{\\i1}\\Na{\\i0}", "<i>a</i>"),
        ("{never closed", "{never closed"),
        ("{\\i1}{\\i0}  ", ""),
        ("", ""),
    ],
)
def test_what_webvtt_can_say_is_kept_and_the_rest_is_harmless(ass: str, expected: str) -> None:
    assert cue_text(line(ass)) == expected


def cue(start: float, end: float | None, text: str = "x") -> Cue:
    return Cue(round(start * 1_000_000), None if end is None else round(end * 1_000_000), text)


def times(text: str) -> list[str]:
    return re.findall(r"^[\d:.]+ --> [\d:.]+$", text, re.MULTILINE)


def test_cues_lie_on_the_films_clock() -> None:
    cues = [cue(11, 13, "late"), cue(9, 10.5, "first"), cue(5, 7, "before")]
    text = webvtt(cues, Fraction(10))
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nfirst\n\n00:00:01.000 --> 00:00:03.000\nlate\n\n"
    assert times(webvtt([cue(3600, 3601.5)], Fraction(0))) == ["01:00:00.000 --> 01:00:01.500"]


def test_a_cue_without_an_end_stands_until_a_later_one() -> None:
    cues = [cue(1, None, "a"), cue(1, None, "b"), cue(3, None, "c"), cue(200, 201, "d")]
    assert times(webvtt(cues, Fraction(0))) == [
        "00:00:01.000 --> 00:00:03.000",
        "00:00:01.000 --> 00:00:03.000",
        "00:00:03.000 --> 00:01:03.000",
        "00:03:20.000 --> 00:03:21.000",
    ]


def test_a_long_cue_lasts_as_it_says() -> None:
    cues = [cue(0, 90, "sign"), cue(5, 6, "speech")]
    assert times(webvtt(cues, Fraction(0))) == ["00:00:00.000 --> 00:01:30.000", "00:00:05.000 --> 00:00:06.000"]


def test_every_cue_has_a_length() -> None:
    cues = [cue(1, 1.0001), cue(2, 2), cue(3, 2.5)]
    assert times(webvtt(cues, Fraction(0))) == ["00:00:01.000 --> 00:00:01.001"]


@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**11), st.none() | st.integers(-(10**9), 10**11)), max_size=30),
    st.integers(-(10**6), 10**6),
)
def test_webvtt_is_in_order_whatever_the_cues(spans: list[tuple[int, int | None]], origin: int) -> None:
    text = webvtt([Cue(start, end, "x") for start, end in spans], Fraction(origin, 1000))
    found = [tuple(_seconds(part) for part in line.split(" --> ")) for line in times(text)]
    assert len(found) == text.count("-->")
    assert all(start < end for start, end in found)
    assert [start for start, _ in found] == sorted(start for start, _ in found)


def _seconds(text: str) -> Fraction:
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)


@given(st.text(alphabet=st.sampled_from("ab{}\\biurpNn01 <>&\n\t\u3000\x00-"), max_size=60))
def test_cue_text_is_well_formed_whatever_is_in_it(raw: str) -> None:
    text = cue_text(line(raw))
    opened: list[str] = []
    for closing, tag in re.findall(r"<(/?)([^>]*)>", text):
        if closing:
            assert opened.pop() == tag
        else:
            assert tag in {"b", "i", "u"}
            opened.append(tag)
    assert opened == []
    assert "-->" not in text
    assert "" not in (text.split("\n") if text else [])
    assert not re.search(r"&(?!amp;|lt;|gt;)", text)


def test_languages_have_one_name() -> None:
    assert [bcp47(text) for text in ("eng", "ger", "deu", "pt-BR", "zho", "und", "", None, "x y", "123")] == [
        "en", "de", "de", "pt-BR", "zh", None, None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mkv", "srt"),
        ("mkv", "ass"),
        ("mkv", "webvtt"),
        ("mp4", "mov_text"),
        ("mov", "mov_text"),
        ("webm", "webvtt"),
    ],
)
async def test_subtitle_tracks_become_captions(sandbox: Sandbox, tmp_path: Path, container: str, codec: str) -> None:
    found = await plan(sandbox, spoken_film(tmp_path, container=container, subtitle_codec=codec, seconds=8))
    assert [(c.name, c.language, c.default) for c in found.captions] == [("en", "en", False), ("de", "de", False)]
    english = found.captions[0].vtt.decode()
    shown = re.findall(r"00:00:([\d.]+) --> 00:00:([\d.]+)", english)
    # In Matroska the sound begins up to a frame before time 0, and so does the film.
    wanted = [(start, end) for start, end, _ in CAPTIONS]
    assert [(float(a), float(b)) for a, b in shown] == [pytest.approx(pair, abs=0.025) for pair in wanted]
    assert "there" in english
    assert "&amp; welcome" in english
    assert "Second line\nof two" in english
    assert "Guten Tag" in found.captions[1].vtt.decode()
    assert [r.language for r in found.renditions if r.kind == "audio"] == ["en", "de"]
    assert [w.code for w in found.warnings] == []


async def test_more_captions_than_may_be_are_cut_off_and_the_film_plays(sandbox: Sandbox, tmp_path: Path) -> None:
    many = [(n / 100, n / 100 + 1, "x") for n in range(MAX_CUES + 10)]
    (kept,) = (await plan(sandbox, captioned_film(tmp_path, [many]))).captions
    assert kept.vtt.count(b"-->") == MAX_CUES
    wide = [(n, n + 1, "字" * 3000) for n in range(120)]
    tracks = (await plan(sandbox, captioned_film(tmp_path, [wide] * (MAX_TRACKS + 1)))).captions
    assert [track.name for track in tracks[:3]] == ["und", "und-2", "und-3"]
    assert len(tracks) == MAX_TRACKS
    assert {track.vtt.count("字".encode()) * 3 <= MAX_TEXT < len(track.vtt) + 9001 for track in tracks} == {True}


async def test_captions_made_to_be_slow_are_read_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    braces = [(1.0, 2.0, "{" * 60_000)] * 10
    same = [(1.0, 80.0, "x")] * MAX_CUES
    begun = time.monotonic()
    assert len((await plan(sandbox, captioned_film(tmp_path, [braces, same]))).captions) == 2
    assert time.monotonic() - begun < 10


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


@pytest.mark.parametrize("container", ["ts", "mkv", "flv"])
async def test_a_sheet_is_the_same_whatever_index_the_container_has(
    sandbox: Sandbox, films: Path, tmp_path: Path, container: str
) -> None:
    first = film(films, seconds=13, width=320, height=180, audio=None)
    second = tmp_path / f"copy.{container}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(first), "-c", "copy", str(second)], check=True)
    sheets = []
    for source in (first, second):
        data = await sandbox.sheet(FileSource(source), await plan(sandbox, source), 0, eager=False, timeout_s=30)
        with av.open(io.BytesIO(data)) as picture:
            sheets.append(next(picture.decode(video=0)).to_ndarray(format="gray").astype(int))
    assert sheets[0].shape == sheets[1].shape == (180, 800)
    assert abs(sheets[0] - sheets[1]).max() < 8


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
