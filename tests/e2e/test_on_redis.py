"""Two whole servers that share one Redis."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.product import problem
from tests.support.redis import redis_server
from tests.support.server import serving

# One process on a part of what nine use.
pytestmark = pytest.mark.embedded


def test_limits_hold_for_both_and_redis_may_go_and_come(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        settings = {
            "cache.backend": "redis",
            "cache.url": redis.url,
            "api_gateway.anonymous_burst": 6,
            "api_gateway.anonymous_per_s": 0.01,
        }
        with serving(tmp_path / "one", settings) as one, serving(tmp_path / "two", settings) as two:
            with one.client() as first, two.client() as second:
                answers = [http.get("/api/v1/assets") for http in (first, second) * 3]
                assert [answer.status_code for answer in answers] == [200] * 6
                assert [problem(http.get("/api/v1/assets")) for http in (first, second)] == [(429, "rate_limited")] * 2
                redis.kill()
                assert first.get("/api/v1/assets").status_code == 200, "each counts by itself while Redis is away"
                assert first.get("/health/ready").status_code == 200
                assert first.get("/health").json()["status"] == "degraded"
                redis.start()
                until = time.monotonic() + 20
                while first.get("/health").json()["status"] != "ok":
                    assert time.monotonic() < until
                    time.sleep(0.1)


def test_a_backend_without_an_address_stops_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"the redis backend needs cache\.url"),
        serving(tmp_path / "data", {"cache.backend": "redis"}),
    ):
        pass
