"""Two hours of film in three players, seconds after the upload, while the ladder is made: twenty random seeks, switches, stalls."""

from __future__ import annotations

from pathlib import Path

from benchmarks import playable
from benchmarks.report import Figure
from tests.support.players import SCRIPTS
from tests.support.product import play
from tests.support.server import serving
from tests.support.tour import tour

MINUTES = 120
SEEKS = 20
SWITCHES = (360, 1080, 480, 1080)


def measure(folder: Path, given: Path | None) -> list[Figure]:
    """By player: the start, the seeks, the longest stall. Fails at a problem that a player or the decoder tells of."""
    film = playable.repeated(folder, given or playable.minute_of_film(folder), MINUTES, "first")
    found = []
    with serving(folder / "seeks") as server:
        for name in SCRIPTS:
            with playable.uploaded(server, film) as (http, asset_id, _):
                playable.playing_at(server, http, asset_id)
                started = play(server, asset_id, server.admin_key).json()
                url = str(started["hls_url" if name == "hls.js" else "dash_url"])
                seen = tour(name, url, MINUTES * 60, seeks=SEEKS, switches=SWITCHES)
                state = http.get(f"{server.url}/api/v1/assets/{asset_id}").json()["state"]
            if seen.problems:
                raise SystemExit(f"{name}: {', '.join(seen.problems)}")
            if state != "processing":
                raise SystemExit(f"{name}: the ladder was {state} before the last seek, so nothing was made beside it")
            switches = ", ".join(map(str, SWITCHES))
            note = f"switches to {switches} between them; p95 {playable.p95(seen.seeks_s):.2f} s"
            first = f"of {MINUTES} min; the player's page and the manifest are loaded too"
            stall = "the picture stands while it should move, seeks included"
            found += [
                Figure(f"{name}: first picture", (seen.start_s,), "s", "–", first),
                Figure(f"{name}: random seeks", seen.seeks_s, "s", "≤ 3 s", note),
                Figure(f"{name}: longest stall", (seen.stall_s,), "s", "≤ 3 s", stall),
            ]
    return found
