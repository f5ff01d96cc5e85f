"""Gated segments against nginx serving the same bytes as files: how many bytes and requests a second one core gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.report import Figure
from tests.support.product import play, upload, wait_final
from tests.support.server import Server, free_port

PAIRS = 5
SECONDS = 5
CONNECTIONS = 16
SERVER_CORE, LOAD_CORE = 0, 1
LRU = 12 << 20
"""Bytes of the small cache: four segments of the large film, of sixteen."""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 65; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}/files; default_type video/iso.segment; }}
}}
"""
SCRIPT = """
local paths = {{ {paths} }}
local at = 0
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %f\\n", summary.requests, summary.bytes, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests and MiB a second, the 99th percentile of latency in ms."""

    requests: float
    mebibytes: float
    p99_ms: float


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """Hot 2 MB segments, a set four times the cache, and 10 kB segments."""
    large = _film(folder / "large.mp4", "1920x1080", 64, "noise=alls=40:allf=t")
    small = _film(folder / "small.mp4", "214x120", 64, "null")
    found: list[Figure] = []
    for name, film, rung, rendition, cache, few, target in (
        ("hot segments of 2 MB", large, 1080, "1080p", 64 << 20, 4, "≥ 1.3"),
        ("segments of 2 MB, a set four times the cache", large, 1080, "1080p", LRU, 16, "≥ 0.6"),
        ("segments of 10 kB", small, 120, "audio-1", 64 << 20, 16, "≥ 0.3"),
    ):
        with _served(folder / f"delivery-{few}-{rung}", film, rung, rendition, cache) as (server, base, segments):
            chosen = segments[:few]
            paths = [f"{base}{number}.m4s" for number in range(len(chosen))]
            with nginx(folder / f"nginx-{few}-{rung}", chosen) as port:
                found += compare(name, server, paths, port, [f"/{n}.m4s" for n in range(len(chosen))], chosen, target)
    return found


def compare(
    name: str,
    server: Server,
    paths: list[str],
    port: int,
    files: list[str],
    segments: list[bytes],
    target: str,
    *,
    by_requests: bool | None = None,
) -> list[Figure]:
    """Alternating runs over the same segments; by bytes, or by requests where they are small."""
    ratios, ours, theirs = [], [], []
    by_requests = len(segments[0]) < 100_000 if by_requests is None else by_requests
    for _ in range(PAIRS):
        mine, other = _load(server.port, paths), _load(port, files)
        ours.append(mine)
        theirs.append(other)
        ratios.append(mine.requests / other.requests if by_requests else mine.mebibytes / other.mebibytes)
    size = sum(map(len, segments)) / len(segments)
    unit = "requests/s" if by_requests else "MiB/s"
    mine_values = tuple(one.requests if by_requests else one.mebibytes for one in ours)
    their_values = tuple(one.requests if by_requests else one.mebibytes for one in theirs)
    how = f"{size / 1000:.0f} kB, {len(segments)} of them, {CONNECTIONS} connections, one core each side"
    return [
        Figure(f"{name}, ours over nginx", tuple(ratios), "×", target, how),
        Figure(f"{name}, ours", mine_values, unit, "–", f"p99 {max(one.p99_ms for one in ours):.1f} ms"),
        Figure(f"{name}, nginx", their_values, unit, "–", f"p99 {max(one.p99_ms for one in theirs):.1f} ms"),
    ]


def _film(path: Path, size: str, seconds: int, picture: str) -> Path:
    if not path.exists():
        command = [
            *(
                "ffmpeg",
                "-v",
                "error",
                "-y",
                "-f",
                "lavfi",
                "-i",
                f"testsrc2=size={size}:rate=24:duration={seconds},{picture}",
            ),
            *("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}", "-c:v", "libx264", "-preset", "ultrafast"),
            *("-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "1", str(path)),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextmanager
def _served(
    folder: Path, film: Path, rung: int, rendition: str, cache: int
) -> Iterator[tuple[Server, str, list[bytes]]]:
    """A server pinned to its core, the path of a rendition of a public film, and its segments."""
    settings = {
        "transcoder.rungs": [rung],
        "transcoder.preset": "ultrafast",
        "transcoder.audio_bitrate": 32_000,
        "cache.memory_bytes": cache,
        "log_level": "warning",
    }
    server = Server(folder, settings)
    server.start()
    try:
        asset_id = upload(server, film, title="Delivery", visibility="public")
        assert wait_final(server, asset_id, 600)["state"] == "ready"
        url = play(server, asset_id, None).json()["hls_url"].replace("master.m3u8", f"{rendition}/")
        playlist = httpx.get(f"{url}playlist.m3u8").text
        segments = [httpx.get(url + name).content for name in re.findall(r"^\d+\.m4s$", playlist, re.MULTILINE)][:16]
        assert server.process is not None
        pin(server.process.pid, SERVER_CORE)
        time.sleep(1)
        yield server, url.removeprefix(server.url), segments
    finally:
        server.stop()


@contextmanager
def nginx(folder: Path, segments: Sequence[bytes]) -> Iterator[int]:
    """nginx with one worker, pinned to the server's core, over the segments as files."""
    (folder / "files").mkdir(parents=True)
    for number, data in enumerate(segments):
        (folder / "files" / f"{number}.m4s").write_bytes(data)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [
        "taskset",
        "-c",
        str(SERVER_CORE),
        program,
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        "stderr",
    ]
    (folder.parent).chmod(0o755)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.05)
            try:
                if httpx.get(f"http://127.0.0.1:{port}/0.m4s").status_code == 200:
                    break
            except httpx.TransportError:
                continue
        else:
            raise RuntimeError("nginx does not serve")
        yield port
    finally:
        process.terminate()
        process.wait()


def _load(port: int, paths: Sequence[str]) -> Load:
    """Run wrk for a few seconds on its core."""
    script = Path(f"/tmp/wrk-{port}.lua")
    script.write_text(SCRIPT.format(paths=", ".join(f'"{path}"' for path in paths)))
    try:
        command = [
            *("taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"),
            *("-s", str(script), f"http://127.0.0.1:{port}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        script.unlink()
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) ([\d.]+)", done.stdout)
    assert match, done.stdout
    requests, size, microseconds, errors = (int(match[n]) for n in range(1, 5))
    assert errors == 0, done.stdout
    seconds = microseconds / 1e6
    return Load(requests / seconds, size / seconds / (1 << 20), float(match[5]))


def pin(pid: int, core: int) -> None:
    """Let a process run on one core only."""
    subprocess.run(["taskset", "-a", "-p", "-c", str(core), str(pid)], check=True, capture_output=True)
