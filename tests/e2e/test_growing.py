"""A film plays while it is uploaded: as far as it has come, for whom it is for, and never otherwise than when it is whole."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streamgate.indexahead import index_at_end
from tests.support.films import by_ffmpeg, moving, tone
from tests.support.mp4_edit import changed, same
from tests.support.passed import passed
from tests.support.players import player
from tests.support.product import TUS, asset, play, problem, wait_final, wait_playable
from tests.support.proxy import proxy
from tests.support.sending import BYTES, Sending, listed, wait_listed
from tests.support.server import Server, serving, wait_for
from tests.support.wallet import Wallet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.embedded]
SECONDS = 30
CODED = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "50", "-sc_threshold", "0", "-c:a", "aac")
FIRST = ("-movflags", "+faststart")
SMALL = {"transcoder.rungs": [120], "transcoder.preset": "ultrafast"}


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("growing") / "data", SMALL) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def film(folder: Path) -> bytes:
    return by_ffmpeg(
        folder, "first.mp4", *moving(SECONDS, "640x360"), *tone(SECONDS), *CODED, "-shortest", *FIRST
    ).read_bytes()


@pytest.fixture(scope="module")
def transport(folder: Path, film: bytes) -> bytes:
    """The same as MPEG-TS."""
    return by_ffmpeg(folder, "first.ts", "-i", str(folder / "first.mp4"), "-c", "copy").read_bytes()


def needed(data: bytes, number: int) -> int:
    """Bytes that must have come for segment ``number`` of picture and sound to be there."""
    index = passed(data).index
    assert index.video is not None
    return max(int(track.needed[number]) for track in (index.video, *index.audio))


def test_a_film_plays_as_far_as_it_has_come(growing: Server, film: bytes) -> None:
    sending = Sending(growing, film, visibility="public")
    sending.until(needed(film, 0) - 1)
    time.sleep(1.5)
    assert not asset(growing, sending.asset_id)["playable"]
    sending.until(needed(film, 0))
    base = sending.base()
    found = asset(growing, sending.asset_id)
    assert (found["state"], found["playable"], found["source"]["mode"]) == ("uploading", True, "passthrough")
    kept: dict[str, bytes] = {}
    for number in (1, 3, 5):
        assert len(listed(base)) <= number
        sending.until(needed(film, number - 1))
        durations = wait_listed(base, number)
        assert len(durations) == len(listed(base, "audio-1")) == number
        text = httpx.get(f"{base}source/playlist.m3u8").text
        assert "#EXT-X-PLAYLIST-TYPE:EVENT" in text
        assert "#EXT-X-ENDLIST" not in text
        for rendition in ("source", "audio-1"):
            for n in range(number):
                answer = httpx.get(f"{base}{rendition}/{n}.m4s")
                assert answer.status_code == 200
                assert kept.setdefault(f"{rendition}/{n}", answer.content) == answer.content
            assert httpx.get(f"{base}{rendition}/{number}.m4s").status_code == 404
            kept[f"{rendition}/init"] = httpx.get(f"{base}{rendition}/init.mp4").content
        assert sending.state() == "uploading"
    dash = httpx.get(f"{base}manifest.mpd")
    assert (problem(dash), dash.headers["retry-after"]) == ((503, "unavailable"), "5")
    sending.rest()
    assert wait_final(growing, sending.asset_id)["state"] == "ready"
    wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text, 10)
    assert "#EXT-X-PLAYLIST-TYPE:VOD" in httpx.get(f"{base}source/playlist.m3u8").text
    assert listed(base)[: len(durations)] == durations
    assert len(listed(base)) == 8
    for name, content in kept.items():
        assert httpx.get(f"{base}{name}.{'mp4' if name.endswith('init') else 'm4s'}").content == content, name
    assert httpx.get(f"{base}manifest.mpd").status_code == 200


@pytest.mark.parametrize("name", ["fragments.mp4", "film.mkv", "film.ts"])
def test_a_film_without_an_index_plays_as_far_as_it_has_come(growing: Server, folder: Path, name: str) -> None:
    """Nobody knows how long it is: what is listed goes on, and never changes."""
    flags = ("-movflags", "+frag_keyframe+empty_moov") if name.endswith("mp4") else ()
    made = by_ffmpeg(folder, name, *moving(SECONDS, "640x360"), *tone(SECONDS), *CODED, "-shortest", *flags)
    sending = Sending(growing, made.read_bytes(), visibility="public")
    sending.part(0.5)
    base = sending.base()
    first = wait_listed(base, 2)
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in httpx.get(f"{base}source/playlist.m3u8").text
    kept = [httpx.get(f"{base}{name}/0.m4s").content for name in ("source", "audio-1")]
    sending.part(0.85)
    more = wait_listed(base, len(first) + 1)
    assert sending.state() == "uploading"
    sending.rest()
    wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text, 20)
    assert more[: len(first)] == first
    assert listed(base)[: len(more)] == more
    assert len(listed(base)) == 8
    assert [httpx.get(f"{base}{name}/0.m4s").content for name in ("source", "audio-1")] == kept


X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:open-gop=0:keyint=50:pools=1")
BESIDE = {
    "hevc.ts": (*moving(SECONDS, "320x180"), *tone(SECONDS), *X265, "-c:a", "ac3", "-shortest"),
    "ac3.mp4": (*moving(SECONDS, "320x180"), *tone(SECONDS), *CODED[:-1], "ac3", "-shortest", *FIRST),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_film_that_is_encoded_in_part_plays_without_that_until_its_last_byte(
    growing: Server, folder: Path, name: str
) -> None:
    """It goes on to play then, and what was shown of it stays; what is encoded comes beside it."""
    sending = Sending(growing, by_ffmpeg(folder, name, *BESIDE[name]).read_bytes(), visibility="public")
    sending.part(0.6)
    base = sending.base()
    first = wait_listed(base, 2)
    found = asset(growing, sending.asset_id)
    assert (found["state"], found["source"]["mode"]) == ("uploading", "passthrough")
    assert "while it arrives" in found["source"]["reason"]
    master = httpx.get(f"{base}master.m3u8").text
    assert (master.count("#EXT-X-STREAM-INF"), "TYPE=AUDIO" in master) == (1, False)
    kept = {n: httpx.get(f"{base}source/{n}").content for n in ("init.mp4", *(f"{n}.m4s" for n in range(2)))}
    sending.rest()
    states = set()
    while asset(growing, sending.asset_id)["state"] != "ready":
        found = asset(growing, sending.asset_id)
        states.add((found["state"], found["playable"]))
        time.sleep(0.02)
    assert {playable for _, playable in states} <= {True}, states
    master = httpx.get(f"{base}master.m3u8").text
    assert "TYPE=AUDIO" in master
    assert master.index("120p/playlist") < master.index("source/playlist") or name != "hevc.ts"
    assert listed(base)[:2] == first[:2]
    assert len(listed(base)) == len(listed(base, "audio-1")) == 8
    for n, content in kept.items():
        assert httpx.get(f"{base}source/{n}").content == content, n
    if name == "hevc.ts":
        stored = [p for p in growing.data_dir.rglob("remuxed/*") if sending.asset_id in str(p)]
        assert len(stored) > 1, "it was written out anew as a whole"


@pytest.mark.browser
def test_a_player_watches_a_film_to_its_end_while_it_comes(growing: Server, film: bytes) -> None:
    """It begins at the beginning, goes on past what was there when it began, and needs nobody to tell it that all is there."""
    sending = Sending(growing, film, visibility="public")
    sending.until(needed(film, 0))
    base = sending.base()
    with player("hls.js") as screen:
        screen.start(f"{base}master.m3u8")
        screen.wait_until_past(1.0)
        sending.until(needed(film, 2))
        screen.wait_until_past(5.0)
        assert sending.state() == "uploading"
        sending.rest()
        wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text, 20)
        screen.wait_until_past(9.0)
        screen.seek(SECONDS - 3)
        screen.wait_until_ended()
        assert screen.problems() == []


def test_only_those_for_whom_the_film_is_watch_it(growing: Server, film: bytes) -> None:
    guest, other = Wallet(), Wallet()
    document = {"v": 1, "expr": {"allowlist": {"addresses": [guest.address]}}}
    with growing.admin() as http:
        policy = http.post("/api/v1/policies", json={"name": "Guests", "document": document}).json()["id"]
    private, gated = Sending(growing, film), Sending(growing, film, visibility="gated", policy_id=policy)
    tokens = {"nobody": None, "other": other.sign_in(growing.url), "guest": guest.sign_in(growing.url)}
    for sending in (private, gated):
        sending.part(0.5)
        wait_playable(growing, sending.asset_id)
    found = {name: play(growing, private.asset_id, token).status_code for name, token in tokens.items()}
    assert found == {"nobody": 404, "other": 404, "guest": 404}
    found = {name: play(growing, gated.asset_id, token).status_code for name, token in tokens.items()}
    assert found == {"nobody": 401, "other": 403, "guest": 201}
    base = play(growing, gated.asset_id, tokens["guest"]).json()["hls_url"].removesuffix("master.m3u8")
    assert httpx.get(f"{base}source/0.m4s").status_code == 200
    forged = base.replace(gated.asset_id, private.asset_id)
    assert httpx.get(f"{forged}source/0.m4s").status_code == 404
    with growing.admin() as http:
        changed = http.patch(f"/api/v1/assets/{gated.asset_id}", json={"visibility": "private"})
        assert changed.status_code == 200
    wait_for(lambda: httpx.get(f"{base}source/0.m4s").status_code == 403, 10)


@pytest.mark.parametrize("end", ["upload", "film"])
def test_what_is_given_up_is_not_served_any_more(growing: Server, film: bytes, transport: bytes, end: str) -> None:
    """Nor is what was written out of it kept."""
    sending = Sending(growing, transport if end == "upload" else film, visibility="public")
    sending.part(0.5)
    base = sending.base()
    assert httpx.get(f"{base}source/0.m4s").status_code == 200
    with growing.admin() as http:
        path = sending.path if end == "upload" else f"/api/v1/assets/{sending.asset_id}"
        assert http.delete(path, headers={"tus-resumable": "1.0.0"}).status_code == 204
    for name in ("source/0.m4s", "source/playlist.m3u8", "master.m3u8", "source/init.mp4"):
        wait_for(lambda name=name: httpx.get(base + name).status_code in {403, 404}, 10)
    assert play(growing, sending.asset_id, growing.admin_key).status_code == 404
    objects = growing.data_dir / "objects"
    left = lambda: [p for p in objects.rglob("*") if p.is_file() and (sending.asset_id in str(p))]  # noqa: E731
    wait_for(lambda: not left(), 10)
    assert not (objects / "uploads" / sending.path.rsplit("/", 1)[1] / "0").exists()


def test_an_upload_goes_on_and_plays_on_after_the_server_was_killed(
    tmp_path: Path, film: bytes, transport: bytes
) -> None:
    """One of which an index is read anew each time, and one that is written out from where the last look stopped."""
    server = Server(tmp_path / "data", SMALL)
    server.start()
    try:
        sending, other = Sending(server, film, visibility="public"), Sending(server, transport, visibility="public")
        sending.until(needed(film, 2))
        other.part(0.5)
        base, beside = sending.base(), other.base()
        before = wait_listed(base, 3)
        listed_beside = len(wait_listed(beside, 2))
        first = httpx.get(f"{base}source/0.m4s").content
        first_beside = httpx.get(f"{beside}source/0.m4s").content
        server.kill()
        server.start()
        assert listed(base)[:3] == before[:3]
        assert httpx.get(f"{base}source/0.m4s").content == first
        assert httpx.get(f"{beside}source/0.m4s").content == first_beside
        other.part(0.9)
        with sending.http() as http:
            offset = int(http.head(sending.path, headers={"tus-resumable": "1.0.0"}).headers["upload-offset"])
        assert offset == sending.at
        sending.until(needed(film, 5))
        assert wait_listed(base, 6)[:3] == before[:3]
        wait_listed(beside, listed_beside + 2)
        other.rest()
        sending.rest()
        assert wait_final(server, sending.asset_id)["state"] == "ready"
        wait_for(lambda: len(listed(base)) == 8)
        wait_for(lambda: len(listed(beside)) == 8)
        assert httpx.get(f"{beside}source/0.m4s").content == first_beside
        assert len(httpx.get(f"{beside}source/7.m4s").content) > 1000
        stored = [p for p in server.data_dir.rglob("remuxed/*") if other.asset_id in str(p)]
        assert len(stored) > 2, "it was written out anew as a whole"
        assert 0.8 * len(transport) < sum(p.stat().st_size for p in stored) < len(transport)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def test_bytes_of_one_long_request_play_while_it_goes_on(growing: Server, film: bytes) -> None:
    """One PATCH with the whole film, as most clients send it, that stands still in the middle."""
    sending = Sending(growing, film, visibility="public")
    go_on = threading.Event()

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(film) // 2, 64 << 10):
            yield film[at : min(at + (64 << 10), len(film) // 2)]
            time.sleep(0.06)
        go_on.wait(30)
        yield film[len(film) // 2 :]

    def send() -> None:
        headers = {"tus-resumable": "1.0.0", "upload-offset": "0", "content-length": str(len(film))}
        with sending.http() as http:
            http.patch(
                sending.path, headers=headers | {"content-type": "application/offset+octet-stream"}, content=pieces()
            )

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert len(wait_listed(sending.base(), 2)) < 6
        assert sending.state() == "uploading"
    finally:
        go_on.set()
        thread.join(30)
    assert wait_final(growing, sending.asset_id)["state"] == "ready"


@pytest.fixture(scope="module")
def last(folder: Path) -> Path:
    """The same kind of film with its index at the end, as most are made."""
    return by_ffmpeg(folder, "last.mp4", *moving(SECONDS, "640x360"), *tone(SECONDS), *CODED, "-shortest")


def send_ahead(sending: Sending, content: bytes, offset: int | None = None, **headers: str) -> httpx.Response:
    told = TUS | BYTES | {"upload-offset": str(len(sending.data) - len(content) if offset is None else offset)}
    with sending.http() as http:
        return http.put(f"{sending.path}/index", headers=told | headers, content=content)


def test_a_film_plays_while_it_comes_when_its_index_was_sent_ahead(growing: Server, last: Path) -> None:
    data, index = last.read_bytes(), index_at_end(last)
    assert index is not None
    sending = Sending(growing, data, visibility="public")
    assert send_ahead(sending, data[index + 1000 :]).status_code == 204
    assert send_ahead(sending, data[index:]).status_code == 204
    folder = growing.data_dir / "objects" / sending.path.replace("/api/v1/", "")
    assert len(list(folder.iterdir())) == 1
    sending.until(needed(data, 1))
    base = sending.base()
    assert len(wait_listed(base, 2)) == 2
    assert sending.state() == "uploading"
    early = httpx.get(f"{base}source/1.m4s").content
    sending.rest()
    wait_for(lambda: "#EXT-X-ENDLIST" in httpx.get(f"{base}source/playlist.m3u8").text, 20)
    assert httpx.get(f"{base}source/1.m4s").content == early
    assert [path.name for path in folder.iterdir()] == ["0"]


def test_an_index_that_is_not_that_of_the_film_counts_for_nothing_in_the_end(growing: Server, last: Path) -> None:
    """It names pictures in the middle of others: until the last byte nothing of that is shown, and then what the file says."""
    data, index = last.read_bytes(), index_at_end(last)
    moved = same(b"stco", lambda table: table.__setitem__(slice(8, None), _shifted(table[8:], 1000)))
    wrong = changed(data, b"stco", moved, which=0)
    sending = Sending(growing, data, visibility="public")
    assert send_ahead(sending, wrong[index:]).status_code == 204
    sending.part(0.8)
    time.sleep(2)
    assert not asset(growing, sending.asset_id)["playable"]
    sending.rest()
    assert wait_final(growing, sending.asset_id)["state"] == "ready"
    base = sending.base()
    assert len(listed(base)) == 8
    assert httpx.get(f"{base}source/0.m4s").content == passed(data).segments(passed(data).index.video)[0]


def test_what_was_listed_by_the_index_of_another_film_is_not_the_film_in_the_end(growing: Server, last: Path) -> None:
    """It says twice the time of every picture, and is believed until the last byte has come. Then the owner is told."""
    data, index = last.read_bytes(), index_at_end(last)
    assert index is not None
    slower = same(b"mdhd", lambda header: header.__setitem__(slice(12, 16), _halved(header[12:16])))
    wrong = changed(data, b"mdhd", slower, which=0)
    honest, lying = Sending(growing, data, visibility="public"), Sending(growing, data, visibility="public")
    assert send_ahead(honest, data[index:]).status_code == 204
    assert send_ahead(lying, wrong[index:]).status_code == 204
    for sending in (honest, lying):
        sending.part(0.8)
    wait_listed(honest.base(), 3)
    base = lying.base()
    wait_listed(base, 1)
    shown = httpx.get(f"{base}source/0.m4s").content
    for sending in (honest, lying):
        sending.rest()
        assert wait_final(growing, sending.asset_id)["state"] == "ready"
    warned = {s.asset_id: [w["code"] for w in asset(growing, s.asset_id)["warnings"]] for s in (honest, lying)}
    assert warned == {honest.asset_id: [], lying.asset_id: ["index_not_of_film"]}
    wait_for(lambda: len(listed(base)) == len(listed(honest.base())) == 8, 10)
    assert listed(base) == listed(honest.base())
    whole = passed(data)
    assert httpx.get(f"{base}source/0.m4s").content == whole.segments(whole.index.video)[0] != shown


def test_what_was_found_out_beside_an_end_that_is_not_the_film_s_is_not_gone_on_from(
    growing: Server, transport: bytes
) -> None:
    """What was written out of the beginning is right, but not believed."""
    sending = Sending(growing, transport, visibility="public")
    assert send_ahead(sending, bytes(18_800)).status_code == 204
    sending.part(0.8)
    base = sending.base()
    first, shown = wait_listed(base, 2), httpx.get(f"{base}source/0.m4s").content
    sending.rest()
    found = wait_final(growing, sending.asset_id)
    assert [warning["code"] for warning in found["warnings"]] == ["index_not_of_film"]
    wait_for(lambda: len(listed(base)) == 8, 10)
    assert listed(base)[:2] == first[:2]
    assert httpx.get(f"{base}source/0.m4s").content == shown
    plans = {p.parents[1] for p in growing.data_dir.rglob("remuxed/*") if sending.asset_id in str(p)}
    assert len(plans) == 2, "what was written out before goes a minute later"


def _halved(number: bytes) -> bytes:
    return (int.from_bytes(number, "big") // 2).to_bytes(4, "big")


def _shifted(offsets: bytes, by: int) -> bytes:
    numbers = struct.unpack(f">{len(offsets) // 4}I", offsets)
    return struct.pack(f">{len(numbers)}I", *(number + by for number in numbers))


def test_what_may_be_sent_ahead(growing: Server) -> None:
    sending = Sending(growing, bytes(1000))
    assert problem(send_ahead(sending, bytes(10), offset=5)) == (422, "validation_failed")
    assert problem(send_ahead(sending, bytes(1000), offset=0)) == (422, "validation_failed")
    assert problem(send_ahead(sending, bytes(10), **{"content-type": "text/plain"})) == (415, "unsupported_media_type")
    with growing.admin() as http:
        open_end = http.post("/api/v1/uploads", headers=TUS | {"upload-defer-length": "1"}).headers["location"]
        part = http.post("/api/v1/uploads", headers=TUS | {"upload-length": "20", "upload-concat": "partial"})
        for url in (open_end, part.headers["location"]):
            told = TUS | BYTES | {"upload-offset": "10"}
            assert problem(http.put(f"{url}/index", headers=told, content=bytes(10))) == (409, "conflict")
        much = bytes((64 << 20) + 1)
        large = http.post("/api/v1/uploads", headers=TUS | {"upload-length": str(len(much) + 10)}).headers["location"]
        told = TUS | BYTES | {"upload-offset": "10"}
        assert problem(http.put(f"{large}/index", headers=told, content=much)) == (413, "payload_too_large")
    sending.rest()
    assert problem(send_ahead(sending, bytes(10))) == (409, "conflict")


def test_the_command_line_says_at_once_where_a_film_plays(tmp_path: Path, last: Path) -> None:
    server = Server(tmp_path / "data", SMALL)
    with proxy(server.port) as line:
        server.settings["public_url"] = f"http://127.0.0.1:{line.port}"
        server.start()
        try:
            line.delay_s = 0.04
            command = [
                sys.executable,
                "-m",
                "streamgate",
                "upload",
                str(last),
                "--server",
                server.settings["public_url"],
            ]
            environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
            with subprocess.Popen(
                [*command, "--data-dir", str(server.data_dir)], env=environ, stdout=subprocess.PIPE, text=True
            ) as upload:
                assert upload.stdout is not None
                asset_id, address = upload.stdout.readline().strip(), upload.stdout.readline().strip()
                assert asset(server, asset_id)["state"] == "uploading"
                assert "#EXT-X-STREAM-INF" in httpx.get(address.replace(str(line.port), str(server.port))).text
                assert upload.stdout.read() == ""
                assert upload.wait(60) == 0
            assert wait_final(server, asset_id)["state"] == "ready"
        finally:
            server.stop()


def test_what_cannot_play_before_its_end_says_nothing_until_then(growing: Server, film: bytes, folder: Path) -> None:
    """The index behind the media; a film whose pictures have to be encoded; an index that points beyond the end."""
    plain = by_ffmpeg(folder, "plain.mp4", *moving(9, "640x360"), *tone(9), *CODED, "-shortest").read_bytes()
    other = ("-c:v", "mpeg4", "-c:a", "aac")
    coded = by_ffmpeg(folder, "old.mp4", *moving(9, "640x360"), *tone(9), *other, "-shortest", *FIRST).read_bytes()
    beyond = film[: len(film) - 200_000]
    films = [Sending(growing, data, visibility="public") for data in (plain, coded, beyond)]
    for sending in films:
        sending.part(0.9)
    with growing.admin() as http:
        wait_for(
            lambda: all(
                [job["state"] for job in http.get("/api/v1/jobs", params={"subject": f.asset_id}).json()["items"]]
                == ["done"]
                for f in films[1:]
            ),
            20,
        )
    for sending in films:
        found = asset(growing, sending.asset_id)
        assert (found["state"], found["playable"]) == ("uploading", False)
        assert problem(play(growing, sending.asset_id, growing.admin_key)) == (409, "conflict")
        sending.rest()
    for sending in films[:2]:
        assert wait_final(growing, sending.asset_id)["state"] == "ready"
