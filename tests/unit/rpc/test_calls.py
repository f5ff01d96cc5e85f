"""Calls over real sockets: who may make them, what happens when nobody answers, and stubs that others generate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from streamgate.contracts.declare import contracts, declaration, open_to, scope_of
from streamgate.contracts.metadata import AssetAccess, Catalog
from streamgate.domain import deadline
from streamgate.domain.asset import Visibility
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import DeadlineExceeded, NotFound, Unauthenticated, Unavailable
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.rpc.admission import Guard
from streamgate.runtime.rpc.client import RpcClient
from streamgate.runtime.rpc.codec import Codec
from streamgate.runtime.rpc.server import RpcServer
from streamgate.runtime.rpc.tokens import ServiceSigner, ServiceVerifier
from tests.support.grpc_binding import At, People
from tests.support.server import free_port

KEY = Ed25519PrivateKey.generate()
CLOCK = SystemClock()
TOKENS = {role.name.lower(): Caller(account=f"a{role}", role=role) for role in Role if role} | {
    "narrow": Caller(account="a", role=Role.ADMIN, scopes=("jobs:read",))
}


class Provider:
    """Answers every method with what it was asked; waits or fails where the id says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            if arguments.get("asset_id") == "slow":
                await asyncio.sleep(60)
            if name != "access":
                raise NotFound("Nothing is here.")
            return AssetAccess(
                id=arguments["asset_id"],
                owner="o",
                visibility=Visibility.PUBLIC,
                policy_id=None,
                playable=True,
                duration=None,
            )

        return call


class Service:
    """All contracts at one server."""

    def __init__(self, codec: Codec, port: int = 0) -> None:
        self.provider = Provider()
        verifier = ServiceVerifier("metadata", {"streaming": KEY.public_key()})
        self.server = RpcServer(codec, Guard(verifier, People(TOKENS)), "127.0.0.1", port, reflected=True)
        for kind in contracts():
            self.server.add(kind, self.provider)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(contracts())


@pytest.fixture
async def service(codec: Codec) -> AsyncIterator[Service]:
    made = Service(codec)
    await made.server.start()
    await made.server.ready()
    yield made
    await made.server.stop(0)


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.server.port}") as made:
        yield made


def client_of(codec: Codec, *ports: int, key: Ed25519PrivateKey = KEY, name: str = "streaming") -> RpcClient:
    return RpcClient(codec, At(*ports), ServiceSigner(name, key, CLOCK), CLOCK)


async def status(channel: Any, path: str, token: str | None) -> str:
    """The status that an empty request gets."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        await channel.unary_unary(path)(b"", metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def test_every_method_is_open_to_whom_its_contract_says_and_to_nobody_else(
    codec: Codec, service: Service, channel: Any
) -> None:
    methods = [(f"/{path}/{rpc.name}", rpc) for path, rpcs in codec.services.values() for rpc in rpcs]
    assert len(methods) >= 40
    for path, rpc in methods:
        least = open_to(rpc.function)
        for token in (None, *TOKENS):
            service.provider.calls.clear()
            got = await status(channel, path, token)
            role = TOKENS[token].role if token else Role.ANONYMOUS
            closed = token == "narrow" and scope_of(rpc.function) != "jobs:read"
            if least is None or role < least or closed:
                assert got == ("PERMISSION_DENIED" if token else "UNAUTHENTICATED"), (path, token)
                assert service.provider.calls == []
            else:
                assert got in {"OK", "NOT_FOUND", "INVALID_ARGUMENT"}, (path, token, got)
                for _, arguments in service.provider.calls:
                    assert arguments["caller"] == (TOKENS[token] if token else Caller())


async def test_nobody_says_who_they_are_in_the_message(codec: Codec, service: Service, channel: Any) -> None:
    path, rpcs = codec.services[Catalog]
    rpc = next(rpc for rpc in rpcs if rpc.name == "Get")
    forged = codec.encoder(rpc.request)(rpc.request(Caller(account="admin", role=Role.ADMIN), "ast_1"))
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary(f"/{path}/Get")(forged, timeout=10)
    assert service.provider.calls == [("get", {"caller": Caller(), "asset_id": "ast_1"})]


async def test_a_service_speaks_for_people(codec: Codec, service: Service) -> None:
    client = client_of(codec, service.server.port)
    with pytest.raises(NotFound, match="Nothing is here"):
        await client.bound(Catalog).get(TOKENS["viewer"], "ast_1")
    assert service.provider.calls == [("get", {"caller": TOKENS["viewer"], "asset_id": "ast_1"})]
    assert (await client.bound(Catalog).access("ast_1")).id == "ast_1"
    await client.close()


@pytest.mark.parametrize("wrong", ["key", "name", "callee"])
async def test_a_wrong_service_token_opens_nothing(codec: Codec, service: Service, wrong: str) -> None:
    key = Ed25519PrivateKey.generate() if wrong == "key" else KEY
    client = client_of(codec, service.server.port, key=key, name="upload" if wrong == "name" else "streaming")
    kind = next(k for k in contracts() if declaration(k).service == "transcoder") if wrong == "callee" else Catalog
    call = client.bound(kind).presentation("ast_1") if wrong == "callee" else client.bound(kind).access("ast_1")
    with pytest.raises(Unauthenticated):
        await call
    assert service.provider.calls == []
    await client.close()


async def test_a_deadline_goes_with_the_call(codec: Codec, service: Service) -> None:
    client = client_of(codec, service.server.port)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        async with deadline.within(0.3):
            await client.bound(Catalog).access("slow")
    assert time.monotonic() - began < 5
    await client.close()


async def test_replicas_take_turns_and_one_that_is_away_is_passed_over(codec: Codec) -> None:
    services = [Service(codec), Service(codec)]
    for one in services:
        await one.server.start()
    client = client_of(codec, services[0].server.port, free_port(), services[1].server.port)
    for _ in range(12):
        assert (await client.bound(Catalog).access("ast_1")).playable
    assert sum(len(one.provider.calls) for one in services) == 12
    assert all(one.provider.calls for one in services)
    await client.close()
    for one in services:
        await one.server.stop(0)


async def test_a_service_that_is_away_is_unavailable_then_not_asked_and_found_when_it_is_back(codec: Codec) -> None:
    port = free_port()
    client = client_of(codec, port)
    catalog = client.bound(Catalog)
    for _ in range(15):
        with pytest.raises(Unavailable) as refused:
            await catalog.access("ast_1")
    assert "too often" in refused.value.detail
    back = Service(codec, port)
    await back.server.start()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            await catalog.access("ast_1")
            break
        except Unavailable:
            await asyncio.sleep(0.2)
    assert len(back.provider.calls) == 1
    await client.close()
    await back.server.stop(0)


async def test_health_and_reflection_are_the_standard_ones(service: Service, channel: Any) -> None:
    asked = health_pb2.HealthCheckRequest(service="streamgate.metadata.v1.Catalog")
    assert (await health_pb2_grpc.HealthStub(channel).Check(asked)).status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    named = {one.name async for answer in answers for one in answer.list_services_response.service}
    assert "streamgate.auth.v1.Access" in named


async def test_stubs_generated_from_the_emitted_files_call_it(service: Service, channel: Any, stubs: Any) -> None:
    messages, catalog = stubs("metadata_pb2"), stubs("metadata_pb2_grpc").CatalogStub(channel)
    signed = [("authorization", f"Bearer {ServiceSigner('streaming', KEY, CLOCK).token('metadata')}")]
    answer = await catalog.Access(messages.CatalogAccessRequest(asset_id="ast_1"), metadata=signed, timeout=10)
    assert (answer.result.id, answer.result.visibility, answer.result.HasField("policy_id")) == (
        "ast_1",
        "public",
        False,
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await catalog.Get(messages.CatalogGetRequest(asset_id="ast_1"), timeout=10)
    found = rpc_status.from_call(_Call(refused.value))
    assert found is not None
    problem = stubs("domain_pb2").Problem()
    found.details[0].Unpack(problem)
    assert (refused.value.code().name, problem.code, problem.title) == ("NOT_FOUND", "not_found", "Not found")


class _Call:
    """What grpcio-status reads of a call, which it knows in the blocking form only."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def trailing_metadata(self) -> Any:
        return tuple(self._error.trailing_metadata())

    def code(self) -> Any:
        return self._error.code()

    def details(self) -> Any:
        return self._error.details()
