"""What running apart costs: requests through the gateway, calls over gRPC, two transcoders, and the memory of each service."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.films import ffmpeg, nine_chunks
from benchmarks.processes import proportional
from benchmarks.report import Figure
from streamgate.contracts.metadata import AssetAccess, Catalog
from streamgate.domain.asset import Visibility
from streamgate.domain.identity import Prefix, new_id
from streamgate.kernel import Binding, DirectBinding, LoopbackBinding
from tests.support.distributed import distributed
from tests.support.films import film
from tests.support.grpc_binding import grpc_binding
from tests.support.nine import Nine
from tests.support.postgres import postgres
from tests.support.product import play, upload, upload_bytes, wait_final
from tests.support.server import Server

RUNS = 5
REQUESTS = 300
"""Of each route in a run."""

CALLS = 2000
PAIRS = 3
FFMPEG_S = 36
"""Seconds of the film that an ffmpeg encodes."""

LOOK_S = 0.25
"""How often it is looked whether a film is ready: looking costs the cores that encode."""

SMALL_MB = {"auth": 160, "metadata": 140, "cache": 140, "worker": 140, "monitor": 140}
"""Service → most megabytes (10^6) that it may take when it is ready."""

SETTINGS: dict[str, Any] = {
    **{f"api_gateway.{kind}_burst": 1_000_000 for kind in ("requests", "anonymous", "sign_in")},
    "transcoder.rungs": [360, 480],
    "transcoder.preset": "veryfast",
    "transcoder.passthrough": False,
    "transcoder.workers": 1,
    "log_level": "warning",
}


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """All of it, on a PostgreSQL, Redis, NATS and object store of its own."""
    folder = folder / "modes"
    folder.mkdir()
    (folder / "postgres").mkdir()
    figures = asyncio.run(_calls())
    with (
        postgres(folder / "postgres") as database,
        distributed(database, folder / "nine", SETTINGS, {"transcoder": 2}) as services,
    ):
        figures += _memory(services)
        one = Server(folder / "one", SETTINGS)
        one.start()
        try:
            figures += _requests({"nine": services.gateway, "one": one}, folder)
        finally:
            one.stop()
        figures += _transcoders(services, folder, given)
    return figures


def _memory(services: Nine) -> list[Figure]:
    """PSS of each service's processes a few seconds after all were ready."""
    time.sleep(5)
    found = []
    for name, server in services.servers.items():
        if server.service != name:
            continue  # a second replica
        assert server.process is not None
        megabytes = proportional(server.process.pid) * (1 << 20) / 1e6
        target = f"≤ {SMALL_MB[name]} MB" if name in SMALL_MB else "–"
        found.append(Figure(f"memory of {name}", (megabytes,), "MB", target, "PSS of its processes, 5 s after ready"))
    return found


def _requests(servers: Mapping[str, Server], folder: Path) -> list[Figure]:
    """The same requests to both, one after the other on one connection, in turns."""
    source = film(folder, seconds=9)
    asking = {name: _Asking(server, upload(server, source, visibility="public")) for name, server in servers.items()}
    for name, server in servers.items():
        assert wait_final(server, asking[name].asset_id)["state"] == "ready"
    waits: dict[tuple[str, str], list[list[float]]] = {}
    for turn in range(RUNS):
        for name in sorted(asking, reverse=bool(turn % 2)):
            for what, seconds in asking[name].run().items():
                waits.setdefault((name, what), []).append(seconds)
    figures = []
    mix: dict[str, tuple[float, ...]] = {}
    for what in _Asking.ROUTES:
        p50 = {name: tuple(statistics.median(run) * 1000 for run in waits[name, what]) for name in asking}
        p99 = {name: [sorted(run)[int(len(run) * 0.99)] * 1000 for run in waits[name, what]] for name in asking}
        ratios = tuple(a / b for a, b in zip(p50["nine"], p50["one"], strict=True))
        told = "; ".join(
            f"{name} p50 {statistics.median(p50[name]):.2f}, p99 {statistics.median(p99[name]):.2f} ms"
            for name in ("nine", "one")
        )
        figures.append(Figure(f"{what}, nine over one", ratios, "× p50", "≤ 2.5", told))
        mix = {name: tuple(map(sum, zip(mix.get(name, (0.0,) * RUNS), p50[name], strict=True))) for name in asking}
    whole = tuple(a / b for a, b in zip(mix["nine"], mix["one"], strict=True))
    note = f"{REQUESTS} of each in a run, one after the other on one connection, client on the same cores"
    return [Figure("the mix of these, nine over one", whole, "× p50", "≤ 2.5", note), *figures]


class _Asking:
    """An administrator who looks at a film, and plays it."""

    ROUTES = ("film", "list of films", "playback", "playlist", "segment")

    def __init__(self, server: Server, asset_id: str) -> None:
        self._server = server
        self.asset_id = asset_id

    def run(self) -> dict[str, list[float]]:
        """Route → seconds that each answer took."""
        base = play(self._server, self.asset_id, None).json()["hls_url"].removesuffix("master.m3u8")
        path = f"/api/v1/assets/{self.asset_id}"
        asked: dict[str, tuple[str, str, bytes | None]] = {
            "film": ("GET", path, None),
            "list of films": ("GET", "/api/v1/assets?limit=20", None),
            "playback": ("POST", f"{path}/playback", b"{}"),
            "playlist": ("GET", f"{base}360p/playlist.m3u8".removeprefix(self._server.url), None),
            "segment": ("GET", f"{base}360p/1.m4s".removeprefix(self._server.url), None),
        }
        found: dict[str, list[float]] = {what: [] for what in self.ROUTES}
        connection = _Connection(self._server)
        for number in range(REQUESTS + 20):
            for what, (method, target, body) in asked.items():
                seconds = connection.ask(method, target, body)
                if number >= 20:
                    found[what].append(seconds)
        return found


class _Connection:
    """Requests one after the other on one connection, by the standard library: a client that costs next to nothing."""

    def __init__(self, server: Server) -> None:
        from http.client import HTTPConnection

        self._http = HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._headers = {"authorization": f"Bearer {server.admin_key}", "content-type": "application/json"}

    def ask(self, method: str, target: str, body: bytes | None) -> float:
        """Seconds until the whole answer was there; fails with what was refused."""
        began = time.perf_counter()
        self._http.request(method, target, body, self._headers)
        answer = self._http.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status >= 300:
            raise RuntimeError(f"{method} {target}: {answer.status} {text[:300]!r}")
        return took


class _Shelf:
    """Answers as the catalog does, from memory."""

    def __init__(self) -> None:
        self._known = AssetAccess(
            id=new_id(Prefix.ASSET),
            owner="eip155:1:0x" + "a" * 40,
            visibility=Visibility.PUBLIC,
            policy_id=None,
            playable=True,
            duration=60.0,
        )

    async def access(self, asset_id: str) -> AssetAccess:
        return self._known

    def __getattr__(self, name: str) -> Any:
        async def never(**_: Any) -> None:
            raise AssertionError(name)

        return never


async def _calls() -> list[Figure]:
    """Microseconds of a call of `Catalog.access` that finds its answer in memory."""
    async with grpc_binding() as over:
        bindings: dict[str, Binding] = {"direct": DirectBinding(), "loopback": LoopbackBinding(), "grpc": over}
        notes = {
            "direct": "the object itself",
            "loopback": "everything serialised and read back",
            "grpc": "protobuf through a socket, with service token, deadline and breaker; both ends in one process",
        }
        figures = []
        for name, binding in bindings.items():
            catalog: Any = binding(Catalog, _Shelf())
            values = tuple([await _paced(lambda c=catalog: c.access("ast_1")) for _ in range(RUNS)])
            figures.append(Figure(f"a call, {name}", values, "µs", "–", notes[name]))
        return figures


async def _paced(call: Callable[[], Awaitable[Any]]) -> float:
    for _ in range(50):
        await call()
    began = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - began) / CALLS * 1e6


@contextmanager
def _on(*cores: int) -> Iterator[None]:
    """What is started in the block stays on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _transcoders(services: Nine, folder: Path, given: Path | None) -> list[Figure]:
    """A film by one transcoder on one core and by two on one each, and the same with ffmpeg, in turns."""
    source, what = nine_chunks(folder, given)
    first, second = services.servers["transcoder"], services.servers["transcoder-2"]
    for number, server in enumerate((first, second)):
        server.stop()
        with _on(number):
            server.start()
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(PAIRS):
        both = _encoded(services.gateway, source)
        theirs.append(2 * _ffmpegs(source, 1) / _ffmpegs(source, 2))
        second.stop()
        alone = _encoded(services.gateway, source)
        with _on(1):
            second.start()
        ours.append(alone / both)
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        Figure("gain by a second transcoder, over that of ffmpeg", ratios, "×", "≥ 0.92", f"360+480, veryfast; {what}"),
        Figure("two transcoders, a core each, over one", tuple(ours), "× speed", "–", "one film, until it is ready"),
        Figure("two ffmpegs, a core each, over one", tuple(theirs), "× speed", "–", "each encodes the same part of it"),
    ]


def _encoded(server: Server, source: Path) -> float:
    """Seconds from the last byte until the film is ready."""
    asset_id = upload_bytes(server, source.read_bytes(), visibility="public")
    began = time.monotonic()
    with server.admin() as http:
        while True:
            found = http.get(f"/api/v1/assets/{asset_id}").json()
            if found["state"] == "ready":
                break
            if found["state"] == "failed":
                raise RuntimeError(found["error"])
            time.sleep(LOOK_S)
    took = time.monotonic() - began
    with server.admin() as http:
        http.delete(f"/api/v1/assets/{asset_id}")
    return took


def _ffmpegs(source: Path, count: int) -> float:
    """Seconds until so many ffmpegs, each on a core of its own, have all encoded the film."""
    command = [ffmpeg(), "-v", "error", "-t", str(FFMPEG_S), "-threads", "1", "-i", str(source)]
    command += ["-filter_complex", "[0:v]split=2[a][b];[a]scale=-2:360[c];[b]scale=-2:480[d]"]
    for label in "cd":
        command += ["-map", f"[{label}]", "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-f", "null", "-"]

    def run(core: int) -> None:
        with _on(core):
            process = subprocess.Popen(command)
        if process.wait():
            raise RuntimeError("ffmpeg failed")

    began = time.monotonic()
    threads = [threading.Thread(target=run, args=(core,)) for core in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began
