"""One server that many tests share; each test brings its own films and wallets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.distributed import distributed
from tests.support.films import film
from tests.support.product import upload, wait_final
from tests.support.server import Server, serving
from tests.support.spoken import spoken_film
from tests.support.topology import Topology

SMALL = {
    "auth.creators": ["*"],
    "transcoder.rungs": [240, 360],
    "transcoder.preset": "ultrafast",
    "transcoder.passthrough": False,
}


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """One process, or, with ``TOPOLOGY=nine``, nine."""
    if os.environ.get("TOPOLOGY") == "nine":
        with distributed(request.getfixturevalue("postgresql")[0], tmp_path_factory.mktemp("nine"), SMALL) as services:
            yield Topology(services, SMALL)
        return
    yield Topology(None, {})


@pytest.fixture(scope="session")
def shared(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a small ladder where every wallet may upload."""
    if topology.apart is not None:
        # As it was started: a test that wants it otherwise leaves it so.
        yield topology.apart.gateway
        return
    with serving(tmp_path_factory.mktemp("shared") / "data", SMALL) as server:
        yield server


@pytest.fixture(scope="session")
def ready_film(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A public film, encoded: 13 seconds, 640 x 360, sound."""
    source = film(tmp_path_factory.mktemp("films"), seconds=13, width=640, height=360)
    asset_id = upload(shared, source, title="A public film", visibility="public")
    assert wait_final(shared, asset_id)["state"] == "ready"
    return asset_id


@pytest.fixture(scope="session")
def spoken(shared: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A public film, encoded: 26 seconds, 640 x 360, English and German, captions in both."""
    source = spoken_film(tmp_path_factory.mktemp("spoken"), seconds=26)
    asset_id = upload(shared, source, title="Two languages", visibility="public")
    found = wait_final(shared, asset_id)
    assert (found["state"], found["warnings"]) == ("ready", [])
    return asset_id
