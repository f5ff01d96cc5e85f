"""Whatever is sent to the API, it answers as its own description says: never 500, nothing undocumented."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from streamgate.plugins.api_gateway.documents import snapshot
from streamgate.runtime.problems import STATUS
from tests.support.server import Server
from tests.support.topology import Topology

pytestmark = pytest.mark.timeout(300)
SCHEMA: Any = schemathesis.openapi.from_dict(json.loads(snapshot()))
EXAMPLES = 5 if os.environ.get("TOPOLOGY") else 25
"""Fewer where every request passes several processes: which requests there are is the same."""
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def open_server(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that does not mind many requests."""
    limits = {f"api_gateway.{kind}_burst": 1_000_000 for kind in ("requests", "anonymous", "sign_in")}
    with topology.serving(tmp_path_factory.mktemp("fuzz") / "data", limits) as server:
        yield server


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_answers_as_it_says(case: Any, open_server: Server) -> None:
    for credential in (None, open_server.admin_key):
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        answer = case.call(base_url=open_server.url, headers=headers, timeout=30)
        if answer.status_code >= 500:
            code = answer.json()["code"]
            assert code in {"unavailable", "chain_unavailable", "insufficient_storage"}, answer.text
            assert STATUS[code] == answer.status_code
        else:
            case.validate_response(answer, checks=CHECKS, headers=headers)
