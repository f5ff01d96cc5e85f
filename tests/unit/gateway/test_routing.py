"""Which service owns which path."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from streamgate.app import Running
from streamgate.contracts.declare import Declaration, declaration, declarations, installed
from streamgate.domain.errors import ConfigurationError
from streamgate.kernel import DirectBinding, discover
from streamgate.plugins.api_gateway import documents
from streamgate.plugins.api_gateway.routing import Routes, refuse_overlaps
from streamgate.runtime.site import port_of
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


@pytest.mark.parametrize(
    ("template", "owner"),
    [
        ("/api/v1/assets", "metadata"),
        ("/api/v1/assets/{id}", "metadata"),
        ("/api/v1/assets/now", "metadata"),
        ("/api/v1/{thing}", "auth|metadata|upload|worker|streaming|cache"),
        ("/api/{path}", "."),
        ("/{path}", "."),
        ("/p/me", "streaming"),
        ("/health", "api-gateway"),
        ("/health/mine", "api-gateway"),
        ("/metrics", "api-gateway"),
        ("/api/v1/second", "second"),
        ("api/v1/hello", "slash"),
    ],
)
def test_a_route_of_another_package_that_covers_what_is_there_is_refused(template: str, owner: str) -> None:
    others = [Declaration("second", ("/api/v1/second",)), Declaration("hello", (template,))]
    with pytest.raises(ConfigurationError, match=owner):
        refuse_overlaps(declarations(), others)


@pytest.mark.parametrize("template", ["/api/v1/hello", "/api/v1/hello/{path}", "/api/v1/assets/{id}/hello", "/hello"])
def test_a_route_of_another_package_may_stand_beside_what_is_there(template: str) -> None:
    refuse_overlaps(declarations(), [Declaration("hello", (template, "/api/v1/hello"))])


def installing(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, value: str) -> None:
    """A package in the folder, as if it was installed."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[streamgate.contracts]\n{name} = {name}:{value}\n")
    monkeypatch.syspath_prepend(str(folder))


CONTRACT = """
from typing import Protocol
from streamgate.contracts.declare import contract

@contract(service="{service}", routes=("/api/v1/hello",), port=9100)
class Hello(Protocol): ...

other = 1
"""


def test_contracts_of_other_packages_are_found_with_their_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installing(tmp_path, monkeypatch, "sg_hello_one", CONTRACT.format(service="hello"), "Hello")
    assert [declaration(kind) for kind in installed()] == [Declaration("hello", ("/api/v1/hello",), 9100)]
    assert port_of("hello") == 9100
    with pytest.raises(ConfigurationError, match="no port of its own"):
        port_of("goodbye")


@pytest.mark.parametrize(
    ("service", "value", "sentence"),
    [
        ("auth", "Hello", "which is ours"),
        ("hello", "other", "is no contract"),
        ("hello", "Missing", "cannot be imported"),
    ],
)
def test_a_contract_that_is_none_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, value: str, sentence: str
) -> None:
    name = f"sg_hello_{service}_{value.lower()}"
    installing(tmp_path, monkeypatch, name, CONTRACT.format(service=service), value)
    with pytest.raises(ConfigurationError, match=sentence):
        installed()
