"""What an operator sees and does: status, schedules, the cache, and the doctor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.films import film
from tests.support.product import play, upload, wait_final
from tests.support.server import Server, serving, wait_for


def test_the_status_tells_how_every_process_and_its_work_are(shared: Server, ready_film: str, tmp_path: Path) -> None:
    # Speed is that of the chunks since the process began.
    wait_final(shared, upload(shared, film(tmp_path, seconds=2)))
    with shared.admin() as http:
        services = http.get("/api/v1/system/status").json()["services"]
    assert {service["service"] for service in services} == (shared.services.keys() or {"monolith"})
    checks: dict[str, Any] = {}
    for service in services:
        process, disk = service["checks"]["process"]["values"], service["checks"]["process.disk"]["values"]
        assert 0 <= process["event_loop_lag_s"] < 5
        assert process["resident_bytes"] > 20 << 20
        assert process["open_files"] > 5
        assert process["tasks"] > 3
        assert 0 < disk["free_bytes"] < disk["total_bytes"]
        checks |= service["checks"]
    assert checks["transcoder.queue"]["values"].keys() == {"runnable", "oldest_s", "encode_speed"}
    assert checks["transcoder.queue"]["values"]["encode_speed"] > 0
    for name in ("database", "bus", "objects", "upload", "metadata", "streaming", "cache.memory"):
        assert checks[name]["status"] == "ok", name
    assert checks["metadata"]["values"]["ready"] >= 1
    assert checks["upload"]["values"].keys() == {"open", "announced_bytes"}
    assert checks["streaming"]["values"]["sessions"] >= 0
    assert checks["cache.memory"]["values"].keys() == {"entries", "bytes", "hits", "misses"}
    assert checks["worker.outbox"]["values"].keys() == {"waiting", "oldest_s"}


def test_transcoders_can_be_scaled_by_what_waits(shared: Server, ready_film: str) -> None:
    told = httpx.get(f"{shared.of('transcoder').url}/metrics").text
    for name in ("sg_transcoder_runnable_jobs", "sg_transcoder_oldest_runnable_seconds"):
        assert f"\n{name} " in told, name


def test_schedules_and_their_last_runs_are_visible(shared: Server) -> None:
    def ran() -> dict[str, dict[str, object]]:
        with shared.admin() as http:
            found = http.get("/api/v1/schedules").json()["items"]
        return {item["name"]: item for item in found}

    expected = {
        "upload sweep",
        "playback sweep",
        "sign-in sweep",
        "films without jobs",
        "sweep of finished jobs and delivered facts",
    }
    wait_for(lambda: expected <= ran().keys() and not any(item["last_error"] for item in ran().values()), 20)
    for item in ran().values():
        assert item["service"] in (shared.services.keys() or {"monolith"})
        assert item["last_took_s"] >= 0  # type: ignore[operator]
        # Of nine, one that another needs may have been started again meanwhile, for tests with other settings.
        assert item["failures"] == 0 or shared.services


@pytest.mark.embedded
def test_a_film_is_warmed_and_purged(shared: Server, ready_film: str) -> None:
    with shared.admin() as http:
        assert http.post("/api/v1/cache/purge", json={"tags": []}).status_code == 200
        before = http.get("/api/v1/cache/stats").json()["tiers"][0]
        assert before["entries"] == 0
        asked = http.post("/api/v1/cache/warm", json={"asset_ids": [ready_film], "segments": 3})
        assert (asked.status_code, asked.json()) == (202, {"asked": 1})
        # Two pictures and the sound: init and three segments of each.
        wait_for(lambda: http.get("/api/v1/cache/stats").json()["tiers"][0]["entries"] == 12, 10)
        misses = http.get("/api/v1/cache/stats").json()["tiers"][0]["misses"]
        base = play(shared, ready_film, None).json()["hls_url"].removesuffix("master.m3u8")
        assert httpx.get(f"{base}360p/2.m4s").status_code == 200
        assert http.get("/api/v1/cache/stats").json()["tiers"][0]["misses"] == misses
        assert http.post("/api/v1/cache/purge", json={"tags": [f"asset:{ready_film}"]}).json()["purged"] == 12
        for wrong in ({"asset_ids": []}, {"asset_ids": ["x"]}, {"asset_ids": [ready_film], "segments": 0}):
            assert http.post("/api/v1/cache/warm", json=wrong).status_code == 422


def doctor(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "streamgate", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.embedded
def test_the_doctor_finds_a_healthy_installation_healthy(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        code, text = doctor("--data-dir", str(tmp_path / "data"))
        assert code == 0, text
        for line in (
            "Python",
            "plugins",
            "settings",
            "data directory",
            "database",
            "sandbox",
            "encoders",
            "signatures",
            "chains",
        ):
            assert f" {line}" in text, text
        assert "up to date" in text
        assert server.process is not None


@pytest.mark.embedded
def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("chains:\n  eip155:1:\n    endpoints: ['http://127.0.0.1:9']\n")
    code, text = doctor("--data-dir", str(tmp_path / "data"), "--config", str(tmp_path / "bad.yaml"))
    assert code == 1
    assert "eip155:1" in text
    (tmp_path / "worse.yaml").write_text("nonsense: 1\n")
    code, text = doctor("--data-dir", str(tmp_path / "data"), "--config", str(tmp_path / "worse.yaml"))
    assert code == 1
    assert "nonsense" in text
    file = tmp_path / "file"
    file.touch()
    code, text = doctor("--data-dir", str(file))
    assert code == 1
    assert "data directory" in text
