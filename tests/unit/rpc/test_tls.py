"""Mutual TLS between services: who is connected to, who may connect, and what is said of files that do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from streamgate.contracts.auth import Access
from streamgate.contracts.metadata import AssetPage, Catalog
from streamgate.domain import deadline
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import ConfigurationError, Unavailable
from streamgate.runtime.rpc import tls
from streamgate.runtime.rpc.client import RpcClient
from streamgate.runtime.rpc.server import RpcServer
from streamgate.runtime.rpc.tls import Tls
from streamgate.runtime.rpc.tokens import ServiceSigner
from tests.support.certificates import Authority
from tests.support.front import CODEC, KEYS, front, server_of
from tests.support.grpc_binding import At, People


class Films:
    """A catalog without films."""

    async def list(self, caller: Any, query: Any) -> AssetPage:
        return AssetPage((), "next")

    def __getattr__(self, name: str) -> Any:
        async def call(**_: Any) -> Any:
            return None

        return call


def loaded(files: dict[str, str]) -> Tls:
    return tls.load(Path(files["cert_file"]), Path(files["key_file"]), Path(files["ca_file"]))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@asynccontextmanager
async def serving(shown: Tls) -> AsyncIterator[RpcServer]:
    """The metadata service, with this certificate."""
    server = server_of("metadata", {Catalog: Films(), Access: Films()}, People(), tls=shown)
    await server.start()
    await server.ready()
    try:
        yield server
    finally:
        await server.stop(0)


async def answered(port: int, shown: Tls | None) -> bool:
    """Whether the streaming service, with this certificate, gets an answer of the metadata service."""
    clock = SystemClock()
    client = RpcClient(CODEC, At(port), ServiceSigner("streaming", KEYS["streaming"], clock), clock, tls=shown)
    try:
        async with deadline.within(10):
            await client.bound(Catalog).discard("ast_1")
    except Unavailable:
        return False
    finally:
        await client.close()
    return True


async def test_services_of_one_authority_reach_each_other_and_nobody_else_gets_in(
    authority: Authority, tmp_path: Path
) -> None:
    others = Authority(tmp_path / "theirs")
    async with serving(loaded(authority.files("metadata"))) as server:
        assert await answered(server.port, loaded(authority.files("streaming")))
        assert not await answered(server.port, None)
        theirs = loaded(others.files("streaming"))
        assert not await answered(server.port, dataclasses.replace(theirs, authority=authority.file.read_bytes()))
        # People have no certificate, and reach the services through the gateway.
        trusting = grpc.ssl_channel_credentials(authority.file.read_bytes())
        named = [("grpc.ssl_target_name_override", "metadata")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", trusting, options=named) as channel:
            call = channel.unary_unary("/streamgate.metadata.v1.Catalog/List")(b"", timeout=10)
            assert (await call.code()).name == "UNAVAILABLE"


async def test_a_server_that_is_not_the_service_in_question_is_not_spoken_to(
    authority: Authority, tmp_path: Path
) -> None:
    client = loaded(authority.files("streaming"))
    async with serving(loaded(authority.files("upload"))) as another:
        assert not await answered(another.port, client)
    theirs = loaded(Authority(tmp_path / "theirs").files("metadata"))
    async with serving(dataclasses.replace(theirs, authority=authority.file.read_bytes())) as stranger:
        assert not await answered(stranger.port, client)


async def test_people_call_through_the_gateway_without_a_certificate(authority: Authority, tmp_path: Path) -> None:
    shown = authority.files("api-gateway", "films.example")
    async with serving(loaded(authority.files("metadata"))) as server:
        settings = {"grpc_tls": shown}
        async with front(tmp_path / "gateway", {"metadata": server.port}, settings) as gateway:
            trusting = grpc.ssl_channel_credentials(authority.file.read_bytes())
            named = [("grpc.ssl_target_name_override", "films.example")]
            async with grpc.aio.secure_channel(gateway.target, trusting, options=named) as channel:
                call = channel.unary_unary("/streamgate.metadata.v1.Catalog/List")(b"", timeout=10)
                assert (await call.code()).name == "OK"
            async with grpc.aio.insecure_channel(gateway.target) as channel:
                call = channel.unary_unary("/streamgate.metadata.v1.Catalog/List")(b"", timeout=10)
                assert (await call.code()).name == "UNAVAILABLE"


def test_files_that_do_not_fit_are_one_sentence(authority: Authority) -> None:
    good, other = authority.files("metadata"), authority.files("auth")
    absent, words = authority.folder / "absent", authority.folder / "words"
    words.write_text("words")
    words.chmod(0o600)
    open_key = authority.folder / "open.key"
    open_key.write_bytes(Path(good["key_file"]).read_bytes())
    open_key.chmod(0o644)
    for wrong, sentence in (
        ({"cert_file": str(absent)}, "cannot be read"),
        ({"key_file": str(absent)}, "does not exist"),
        ({"ca_file": str(absent)}, "cannot be read"),
        ({"cert_file": str(words)}, "no certificate"),
        ({"ca_file": str(words)}, "no certificate"),
        ({"key_file": str(words)}, "no private key"),
        ({"key_file": str(open_key)}, "chmod 600"),
        ({"key_file": other["key_file"]}, "is not that of the certificate"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            loaded(good | wrong)
