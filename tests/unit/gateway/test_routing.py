"""Which service owns which path."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streamgate.app import Running
from streamgate.contracts.declare import Declaration, declarations
from streamgate.kernel import DirectBinding, discover
from streamgate.plugins.api_gateway import documents
from streamgate.plugins.api_gateway.routing import Routes
from streamgate.settings import load

PATHS = list(msgspec.json.decode(documents.snapshot())["paths"])


def test_every_route_of_the_document_is_declared_by_one_service() -> None:
    declared = Counter(template for found in declarations() for template in found.routes)
    assert {template: count for template, count in declared.items() if count > 1} == {}
    assert set(declared) - {"/p/{path}"} == set(PATHS)


async def test_every_mount_is_declared_by_the_service_that_has_it(tmp_path: Path) -> None:
    plugins = discover()
    running = Running(load(plugins, service="monolith", flags={"data_dir": tmp_path}, environ={}), "monolith")
    routes = Routes(declarations())
    async with running.started(plugins, DirectBinding()):
        for name, parts in running.assembled.parts.items():
            for prefix in parts.mounts:
                found = routes.of(f"{prefix}anything/beneath")
                assert found is not None
                assert (found.service, found.template) == (name, f"{prefix}{{path}}")


@pytest.mark.parametrize("template", PATHS)
def test_a_path_goes_to_the_service_that_declares_it(template: str) -> None:
    owner = next(found.service for found in declarations() if template in found.routes)
    path = "/".join("x1" if part.startswith("{") else part for part in template.split("/"))
    for written in (path, f"{path}/"):
        found = Routes(declarations()).of(written)
        assert found is not None
        assert (found.service, found.template) == (owner, template)


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/health", "/health/ready", "/openapi.json", "/docs", "/api/v1", "/p", "/api/v1/assets/a/b/c"],
)
def test_what_nobody_declared_stays_here(path: str) -> None:
    assert Routes(declarations()).of(path) is None


def test_a_written_segment_wins_over_a_parameter() -> None:
    routes = Routes([Declaration("one", ("/a/{b}",)), Declaration("two", ("/a/now",))])
    assert [found.service for path in ("/a/now", "/a/later") if (found := routes.of(path))] == ["two", "one"]
