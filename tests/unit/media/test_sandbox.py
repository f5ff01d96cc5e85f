"""The cage: hostile files, hostile children, and children that must die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import av
import psutil
import pytest

from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import Unavailable
from streamgate.media import sandbox as confining
from streamgate.media.children import Nursery
from streamgate.media.model import LadderSettings, Limits
from streamgate.media.sandbox import Sandbox
from streamgate.media.wire import ProbeTask
from tests.support.encoding import SMALL, FileSource, plan
from tests.support.films import film

SLOW = LadderSettings(rungs=(1080,), preset="slow")


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    (tmp_path / "scratch").mkdir()
    async with Sandbox.open(tmp_path / "scratch") as opened:
        yield opened


def children() -> list[psutil.Process]:
    """Media children of this process: below its fork server."""
    servers = [p for p in psutil.Process().children() if "streamgate.media.zygote" in " ".join(p.cmdline())]
    return [child for server in servers for child in server.children() if lives(child)]


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def gone(processes: list[psutil.Process], within_s: float = 2.0) -> None:
    until = time.monotonic() + within_s
    while any(lives(p) for p in processes):
        assert time.monotonic() < until, "a child lives on"
        await asyncio.sleep(0.02)


async def refusal(sandbox: Sandbox, path: Path, limits: Limits | None = None, *, by_path: bool = True) -> FailureCode:
    with pytest.raises(MediaRefused) as refused:
        await sandbox.plan(FileSource(path, by_path=by_path), ladder=SMALL, limits=limits or Limits(), timeout_s=20)
    assert refused.value.failure.detail.endswith(".")
    assert "Traceback" not in refused.value.failure.detail
    return refused.value.failure.code


SECRET = "the secret of somebody else"
DISGUISES = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "m3u8, relative": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{name}\n#EXT-X-ENDLIST\n",
    "m3u8 with subfile": "#EXTM3U\n#EXTINF:10,\nsubfile,,start,0,end,0,,:{path}\n",
    "m3u8 with concat": "#EXTM3U\n#EXTINF:10,\nconcat:{path}|{path}\n",
    "ffconcat": "ffconcat version 1.0\nfile '{path}'\n",
    "concat without a header": "file '{path}'\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>file://{path}</BaseURL></Period></MPD>',
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "IMF": '<?xml version="1.0"?><AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><AssetList/></AssetMap>',
    "SVG": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{path}"/></svg>',
    "RealMedia link": "rtsp://127.0.0.1/{name}\n",
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("by_path", [True, False], ids=["path", "ranges"])
async def test_a_playlist_in_disguise_opens_nothing(
    sandbox: Sandbox, films: Path, tmp_path: Path, name: str, by_path: bool
) -> None:
    victim = film(films, seconds=1, audio=None)
    disguise = tmp_path / "film.mp4"
    disguise.write_text(DISGUISES[name].format(path=victim, name=victim.name) + "\n" * 2000)
    code = await refusal(sandbox, disguise, by_path=by_path)
    assert code in {FailureCode.UNSUPPORTED_CONTAINER, FailureCode.MALFORMED_MEDIA}


async def test_what_is_no_film_is_refused_with_its_code(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"")
    assert await refusal(sandbox, bad) is FailureCode.MALFORMED_MEDIA
    bad.write_text("nothing but words\n" * 1000)
    assert await refusal(sandbox, bad) is FailureCode.UNSUPPORTED_CONTAINER
    whole = film(films, seconds=4).read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    assert await refusal(sandbox, bad) is FailureCode.TRUNCATED_MEDIA
    assert await refusal(sandbox, film(films, seconds=4), Limits(max_duration_s=3)) is FailureCode.TOO_LONG
    assert await refusal(sandbox, film(films, seconds=4), Limits(max_pixels=1000)) is FailureCode.TOO_MANY_PIXELS
    assert await refusal(sandbox, film(films, seconds=4), Limits(max_size=1000)) is FailureCode.TOO_LARGE


def bomb(path: Path, side: int) -> None:
    """One picture of ``side`` by ``side`` pixels, all of one colour, in a small file."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = side
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame(side, side, "rgb24")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.pts = 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


async def test_a_bomb_goes_off_in_the_cage(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "bomb.mov"
    bomb(path, 15_000)
    assert path.stat().st_size < 4 << 20
    for limits in (Limits(), Limits(max_pixels=1 << 30)):
        assert await refusal(sandbox, path, limits) in {FailureCode.TOO_MANY_PIXELS, FailureCode.TOO_LARGE}
    assert (await sandbox.attempt(ProbeTask())).escaped == ()


@pytest.mark.parametrize("seed", range(24))
async def test_damage_anywhere_never_hangs_or_breaks_the_server(
    sandbox: Sandbox, films: Path, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    data = bytearray(film(films, seconds=2, width=160, height=120, container="mkv" if seed % 2 else "mp4").read_bytes())
    for _ in range(1 + seed * 3):
        at = dice.randrange(len(data))
        data[at : at + dice.choice([1, 4, 64])] = dice.randbytes(dice.choice([0, 1, 4, 64]))
    path = tmp_path / "damaged"
    path.write_bytes(data)
    try:
        made = await sandbox.plan(FileSource(path), ladder=SMALL, limits=Limits(), timeout_s=20)
        folder = tmp_path / "scratch" / "out"
        folder.mkdir()
        names = tuple(r.name for r in made.renditions)
        await sandbox.encode(
            FileSource(path), made, chunks=range(1), renditions=names, folder=folder, timeout_s=30, eager=False
        )
    except MediaRefused as refused:
        found = refused.failure
    else:
        return
    assert found.code not in {FailureCode.INTERNAL, FailureCode.TIMEOUT}, found


async def test_a_child_reads_nothing_writes_nothing_and_calls_nobody(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "admin.key"
    secret.write_text(SECRET)
    own = tmp_path / "scratch" / "own"
    own.mkdir()
    held = await sandbox.attempt(ProbeTask(read=str(secret), write=str(tmp_path / "written"), connect=True), folder=own)
    assert held.escaped == ()
    assert not (tmp_path / "written").exists()
    assert set(held.confined) >= {"no_new_privs", "rlimits", "capabilities"}
    inside = await sandbox.attempt(ProbeTask(write=str(own / "allowed")), folder=own)
    assert inside.escaped == ("write",)
    absent = [name for name, holds in sandbox.protections().items() if not holds]
    if absent:
        pytest.skip(f"this kernel does not offer {', '.join(absent)}")


async def test_a_child_has_no_environment_and_none_of_our_files(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        waiting = asyncio.create_task(sandbox.attempt(ProbeTask(spin=True), timeout_s=3))
        while not children():
            await asyncio.sleep(0.01)
        (child,) = children()
        assert child.environ() == {} or "STREAMGATE" not in str(child.environ())
        handles = [number for number in os.listdir(f"/proc/{child.pid}/fd") if int(number) > 2]
        links = [os.readlink(f"/proc/{child.pid}/fd/{number}") for number in handles]
        assert len(links) == 1
        assert links[0].startswith("socket:")
        waiting.cancel()
        await asyncio.wait([waiting])
        await gone([child])


async def test_memory_time_and_crashes_end_the_child_alone(sandbox: Sandbox) -> None:
    with pytest.raises(MediaRefused) as hoarding:
        await sandbox.attempt(ProbeTask(allocate=1 << 30), memory=400 << 20)
    assert hoarding.value.failure.code is FailureCode.TOO_LARGE
    began = time.monotonic()
    with pytest.raises(MediaRefused) as spinning:
        await sandbox.attempt(ProbeTask(spin=True), timeout_s=0.5)
    assert spinning.value.failure.code is FailureCode.TIMEOUT
    assert time.monotonic() - began < 3
    with pytest.raises(MediaRefused) as crashing:
        await sandbox.attempt(ProbeTask(crash=True))
    assert crashing.value.failure.code is FailureCode.MALFORMED_MEDIA
    assert (await sandbox.attempt(ProbeTask())).escaped == ()
    assert children() == []


@pytest.mark.parametrize("mib", [340, 400, 460])
async def test_a_film_that_needs_more_memory_than_it_may_use_is_not_called_damaged(
    sandbox: Sandbox, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int
) -> None:
    """Decoder and encoder run out of it in different places and tell so, if they do, in different ways."""
    path = film(films, seconds=2, width=1920, height=1080)
    made = await plan(sandbox, path, LadderSettings(rungs=(360, 1080), preset="ultrafast"))
    monkeypatch.setattr(confining, "_ENCODE_MEMORY", mib << 20)
    monkeypatch.setattr(confining, "_ENCODE_BYTES_PER_PIXEL", 0)
    folder = tmp_path / "scratch" / "out"
    folder.mkdir()
    names = tuple(rendition.name for rendition in made.renditions)
    with pytest.raises(MediaRefused) as refused:
        await sandbox.encode(
            FileSource(path), made, chunks=range(1), renditions=names, folder=folder, timeout_s=30, eager=False
        )
    assert refused.value.failure.code is FailureCode.TOO_LARGE


async def test_cancelling_stops_the_encoder_at_once(sandbox: Sandbox, films: Path, tmp_path: Path) -> None:
    path = film(films, seconds=20, width=1920, height=1080)
    made = await plan(sandbox, path, SLOW)
    folder = tmp_path / "scratch" / "out"
    folder.mkdir()
    names = tuple(r.name for r in made.renditions)
    work = asyncio.create_task(
        sandbox.encode(FileSource(path), made, chunks=range(1, 4), renditions=names, folder=folder, timeout_s=60)
    )
    while not children():
        await asyncio.sleep(0.01)
    encoders = children()
    await asyncio.sleep(0.3)
    work.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert time.monotonic() - began < 1
    await gone(encoders, 0.5)


async def test_background_work_stands_still_while_somebody_waits_and_its_time_with_it(
    sandbox: Sandbox, films: Path, tmp_path: Path
) -> None:
    path = film(films, seconds=8, width=1280, height=720)
    made = await plan(sandbox, path, SLOW)
    names = tuple(r.name for r in made.renditions)
    folders = [tmp_path / "scratch" / name for name in ("eager", "urgent")]
    for folder in folders:
        folder.mkdir()
    while children():
        await asyncio.sleep(0.01)
    eager = asyncio.create_task(
        sandbox.encode(FileSource(path), made, chunks=range(1), renditions=names, folder=folders[0], timeout_s=30)
    )
    while not children():
        await asyncio.sleep(0.01)
    (background,) = children()
    urgent = asyncio.create_task(sandbox.attempt(ProbeTask(spin=True), timeout_s=1.0))
    await asyncio.sleep(0.5)
    assert background.status() == psutil.STATUS_STOPPED
    assert background.nice() == 19
    before = sum(background.cpu_times()[:2])
    await asyncio.sleep(0.3)
    assert sum(background.cpu_times()[:2]) - before < 0.05
    with pytest.raises(MediaRefused):
        await urgent
    await asyncio.sleep(0.1)
    assert not background.is_running() or background.status() != psutil.STATUS_STOPPED
    assert (await eager).segments


async def test_a_fork_server_that_died_is_started_again(sandbox: Sandbox) -> None:
    (server,) = [p for p in psutil.Process().children() if "streamgate.media.zygote" in " ".join(p.cmdline())]
    server.send_signal(signal.SIGKILL)
    await gone([server])
    for _ in range(2):
        try:
            held = await sandbox.attempt(ProbeTask())
        except Unavailable:
            continue
        assert held.escaped == ()
        break
    else:
        pytest.fail("the sandbox did not recover")


PARENT = """
import asyncio, sys
from pathlib import Path
from streamgate.media.sandbox import Sandbox
from streamgate.media.wire import ProbeTask
async def main():
    async with Sandbox.open(Path(sys.argv[1])) as sandbox:
        asyncio.get_running_loop().call_later(0.5, lambda: print("working", flush=True))
        await sandbox.attempt(ProbeTask(spin=True), timeout_s=60)
asyncio.run(main())
"""


async def test_children_die_with_the_server(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"working\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 2
    parent.kill()
    parent.wait()
    await gone(family)


async def test_children_that_were_stopped_at_once_die_with_the_fork_server() -> None:
    for _ in range(10):
        nursery = Nursery()
        for _ in range(3):
            child, _ = await nursery.child()
            child.signal(signal.SIGSTOP)
        (server,) = [p for p in psutil.Process().children() if "streamgate.media.zygote" in " ".join(p.cmdline())]
        family = server.children()
        assert len(family) == 3
        server.kill()
        await gone(family)
        await nursery.close()
