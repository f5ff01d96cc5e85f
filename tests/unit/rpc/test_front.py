"""The gateway's port for calls: what it passes on, what it keeps to itself, and what happens when a service is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from streamgate.contracts.auth import Access, SessionInfo
from streamgate.contracts.declare import contracts
from streamgate.contracts.metadata import AssetPage, Catalog
from streamgate.contracts.worker import Work
from streamgate.domain import deadline
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import NotFound
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.rpc.server import LARGEST_OF_PEOPLE, RpcServer
from streamgate.runtime.rpc.tokens import ServiceSigner
from tests.support.front import KEYS, Front, free_grpc_port, front, server_of
from tests.support.grpc_binding import People
from tests.support.proxy import Proxy

VIEWER = Caller(account="a", role=Role.VIEWER, key_id="key_1")
PEOPLE = People({"sg_key_viewer": VIEWER, "sg_key_creator": Caller(account="b", role=Role.CREATOR)})
CREDENTIAL = ("authorization", "Bearer sg_key_viewer")
CREATOR = ("authorization", "Bearer sg_key_creator")
ROUNDED_UP_S = 0.2
"""What gRPC may add to a deadline that it sends."""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Provider:
    """Answers as auth and metadata, and remembers what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.left_s: float | None = None

    async def resolve_key(self, key: str) -> Caller:
        return await PEOPLE.caller(f"Bearer {key}")

    async def session(self, caller: Caller) -> SessionInfo:
        self.calls.append(("session", {"caller": caller}))
        return SessionInfo(id=None, account=str(caller.account), role=caller.role.name)

    async def list(self, caller: Caller, query: Any) -> AssetPage:
        self.calls.append(("list", {"caller": caller, "query": query}))
        self.left_s = deadline.remaining_s()
        if query.search == "slow":
            await asyncio.sleep(60)
        return AssetPage((), "next")

    def __getattr__(self, name: str) -> Any:
        async def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            raise NotFound("Nothing is here.")

        return call


class World:
    """A gateway before auth and metadata, which answer, and the others, which are away."""

    def __init__(self, folder: Path, stack: AsyncExitStack, provider: Provider) -> None:
        self.folder, self._stack, self.provider = folder, stack, provider
        self.ports: dict[str, Any] = {"worker": free_grpc_port()}
        self.channel: Any = None

    async def serve(self, service: str, kind: type, *, port: int = 0, provider: Provider | None = None) -> RpcServer:
        server = server_of(service, {kind: provider or self.provider}, PEOPLE, port=port)
        await server.start()
        await server.ready()
        self._stack.push_async_callback(server.stop, 0)
        return server

    async def open(self, **settings: Any) -> Front:
        """The gateway, and a channel to it."""
        made = await self._stack.enter_async_context(front(self.folder, self.ports, settings))
        options = [("grpc.max_send_message_length", 1 << 26)]
        self.channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(made.target, options=options))
        return made

    async def status(self, path: str, *metadata: tuple[str, str], data: bytes = b"") -> str:
        call = self.channel.unary_unary(f"/streamgate.{path}")(data, metadata=metadata, timeout=20)
        return str((await call.code()).name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(tmp_path, stack, Provider())
        for service, kind in (("auth", Access), ("metadata", Catalog)):
            made.ports[service] = (await made.serve(service, kind)).port
        yield made


async def test_stock_stubs_call_a_service_through_the_gateway(world: World, stubs: Any) -> None:
    await world.open()
    messages, catalog = stubs("metadata_pb2"), stubs("metadata_pb2_grpc").CatalogStub(world.channel)
    request = messages.CatalogListRequest(query=messages.AssetQuery(limit=3, search="sea"))
    call = catalog.List(request, metadata=[CREDENTIAL], timeout=10)
    assert (await call).result.next_cursor == "next"
    trailers = dict(await call.trailing_metadata())
    assert re.fullmatch(r'"key";r=\d+;t=\d+', trailers["ratelimit"])
    ((_, asked),) = world.provider.calls
    assert (asked["caller"], asked["query"].limit, asked["query"].search) == (VIEWER, 3, "sea")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await catalog.Get(messages.CatalogGetRequest(asset_id="ast_1"), timeout=10)
    assert (refused.value.code().name, refused.value.details()) == ("NOT_FOUND", "Nothing is here.")
    assert "grpc-status-details-bin" in dict(refused.value.trailing_metadata())


async def test_methods_of_services_and_unknown_ones_are_not_there(world: World) -> None:
    await world.open()
    signed = ServiceSigner("streaming", KEYS["streaming"], SystemClock()).token("metadata")
    for path in ("metadata.v1.Catalog/Access", "upload.v1.Uploads/Source", "metadata.v1.Catalog/None", "x.v1.Y/Z"):
        assert await world.status(path, ("authorization", f"Bearer {signed}")) == "UNIMPLEMENTED"
    assert await world.status("metadata.v1.Catalog/List", ("authorization", f"Bearer {signed}")) == "UNAUTHENTICATED"
    assert world.provider.calls == []


async def test_only_credential_request_id_and_trace_go_along(world: World) -> None:
    seen: list[dict[str, Any]] = []

    class Raw(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            async def answer(_: bytes, context: Any) -> bytes:
                seen.append(dict(context.invocation_metadata()))
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Raw(),))
    world.ports["metadata"] = port = free_grpc_port()
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await world.open()
    spoofed = ("x-forwarded-for", "x-streamgate-deadline", "x-streamgate-caller", "cookie", "forwarded", "tracestate")
    sent = [CREDENTIAL, ("x-request-id", "abcdefgh"), ("traceparent", TRACE), *((name, "9.9.9.9") for name in spoofed)]
    assert await world.status("metadata.v1.Catalog/List", *sent) == "OK"
    assert await world.status("metadata.v1.Catalog/List", ("x-request-id", "?"), ("traceparent", "00-0-0-0")) == "OK"
    first, second = seen
    assert (first["x-request-id"], first["traceparent"], first["authorization"]) == ("abcdefgh", TRACE, CREDENTIAL[1])
    assert first.keys() - {"user-agent"} == {"x-request-id", "traceparent", "authorization"}
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", second["traceparent"])
    assert re.fullmatch(r"[0-9a-f]{24}", second["x-request-id"])
    assert second.keys() - {"user-agent"} == {"x-request-id", "traceparent"}
    await server.stop(0)


async def test_two_credentials_and_large_requests_are_refused(world: World) -> None:
    await world.open()
    twice = (CREDENTIAL, ("authorization", "Bearer sg_key_other"))
    assert await world.status("metadata.v1.Catalog/List", *twice) == "UNAUTHENTICATED"
    assert await world.status("metadata.v1.Catalog/List", data=bytes(LARGEST_OF_PEOPLE + 1)) == "RESOURCE_EXHAUSTED"
    assert world.provider.calls == []


async def test_a_deadline_goes_through_and_ends_the_call(world: World, stubs: Any) -> None:
    await world.open()
    messages, catalog = stubs("metadata_pb2"), stubs("metadata_pb2_grpc").CatalogStub(world.channel)
    await catalog.List(messages.CatalogListRequest(), timeout=5)
    assert world.provider.left_s is not None
    assert 1 < world.provider.left_s <= 5 + ROUNDED_UP_S
    await catalog.List(messages.CatalogListRequest())
    assert 5 < world.provider.left_s <= deadline.DEFAULT_S + ROUNDED_UP_S
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await catalog.List(messages.CatalogListRequest(query=messages.AssetQuery(search="slow")), timeout=0.3)
    assert late.value.code().name == "DEADLINE_EXCEEDED"
    assert time.monotonic() - began < 5


async def test_a_service_that_is_away_is_unavailable_found_when_it_is_back_and_given_time_in_the_end(
    world: World,
) -> None:
    await world.open()

    async def asked() -> tuple[str, str]:
        call = world.channel.unary_unary("/streamgate.worker.v1.Work/Get")(b"", metadata=[CREATOR], timeout=20)
        return str((await call.code()).name), str(await call.details())

    assert (await asked())[0] == "UNAVAILABLE"
    server = await world.serve("worker", Work, port=world.ports["worker"])
    async with asyncio.timeout(30):
        while (await asked())[0] == "UNAVAILABLE":
            await asyncio.sleep(0.1)
    assert await asked() == ("NOT_FOUND", "Nothing is here.")
    await server.stop(0)
    async with asyncio.timeout(30):
        while "too often" not in (last := await asked())[1]:
            assert last[0] == "UNAVAILABLE"
            assert await world.status("metadata.v1.Catalog/List") == "OK"


async def test_replicas_take_turns_and_one_that_is_away_is_passed_over(world: World) -> None:
    second = Provider()
    other = await world.serve("metadata", Catalog, provider=second)
    world.ports["metadata"] = (world.ports["metadata"], free_grpc_port(), other.port)
    await world.open()
    for _ in range(12):
        assert await world.status("metadata.v1.Catalog/List") == "OK"
    assert len(world.provider.calls) + len(second.calls) == 12
    assert world.provider.calls
    assert second.calls


async def test_calls_count_like_requests_of_the_same_key_or_address(world: World) -> None:
    few = {"requests_burst": 3, "requests_per_s": 0.01, "sign_in_burst": 2, "sign_in_per_s": 0.01}
    await world.open(api_gateway=few)
    for expected in ("OK", "OK", "OK", "RESOURCE_EXHAUSTED"):
        assert await world.status("metadata.v1.Catalog/List", CREDENTIAL) == expected
    assert await world.status("metadata.v1.Catalog/List") == "OK"
    wrong = ("authorization", "Bearer nonsense")
    for expected in ("UNAUTHENTICATED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"):
        assert await world.status("metadata.v1.Catalog/List", wrong) == expected
    assert await world.status("auth.v1.Access/SignIn") == "RESOURCE_EXHAUSTED"


async def test_a_call_to_a_half_open_service_ends_with_its_deadline(world: World) -> None:
    proxy = Proxy(world.ports["metadata"])
    world.ports["metadata"] = proxy.port
    await world.open()
    assert await world.status("metadata.v1.Catalog/List") == "OK"
    proxy.stall()
    call = world.channel.unary_unary("/streamgate.metadata.v1.Catalog/List")(b"", timeout=0.3)
    assert (await call.code()).name == "DEADLINE_EXCEEDED"
    proxy.mend()
    assert await world.status("metadata.v1.Catalog/List") == "OK"
    proxy.close()


async def test_calls_are_counted_by_method_and_status_and_breakers_are_told_of(world: World) -> None:
    opened = await world.open()
    assert await world.status("metadata.v1.Catalog/List") == "OK"
    assert await world.status("metadata.v1.Catalog/Get") == "NOT_FOUND"
    assert await world.status("metadata.v1.Catalog/Create") == "UNAUTHENTICATED"
    for _ in range(10):
        assert await world.status("worker.v1.Work/Get", CREATOR) == "UNAVAILABLE"
    transport = httpx.ASGITransport(app=opened.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        exposed = (await http.get("/metrics")).text
        checks = (await http.get("/health")).json()["checks"]
    for method, code, count in (
        ("metadata.v1.Catalog/List", "OK", 1),
        ("metadata.v1.Catalog/Get", "NOT_FOUND", 1),
        ("metadata.v1.Catalog/Create", "UNAUTHENTICATED", 1),
        ("worker.v1.Work/Get", "UNAVAILABLE", 10),
    ):
        assert f'sg_rpc_requests_total{{code="{code}",method="/streamgate.{method}"}} {count}.0' in exposed
    assert 'sg_rpc_request_duration_seconds_count{method="/streamgate.metadata.v1.Catalog/List"} 1.0' in exposed
    assert (checks["calls.metadata"]["status"], checks["calls.worker"]["status"]) == ("ok", "degraded")


async def test_health_tells_of_the_services_and_reflection_of_what_is_open(world: World) -> None:
    await world.open(grpc_reflection=True)
    health = health_pb2_grpc.HealthStub(world.channel)

    async def standing(name: str) -> str:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    assert [await standing(name) for name in ("", "streamgate.metadata.v1.Catalog", "streamgate.worker.v1.Work")] == [
        "SERVING",
        "SERVING",
        "NOT_SERVING",
    ]
    watching = health.Watch(health_pb2.HealthCheckRequest(service="streamgate.worker.v1.Work"), timeout=30)
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watching.cancel()
    reflection = reflection_pb2_grpc.ServerReflectionStub(world.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="streamgate.metadata.v1.Catalog"),
    ]
    names, files = [answer async for answer in reflection.ServerReflectionInfo(iter(asked))]
    listed = {one.name for one in names.list_services_response.service}
    assert "streamgate.metadata.v1.Catalog" in listed
    assert "streamgate.upload.v1.Uploads" not in listed
    assert len(listed) == len(contracts()) - 1 + 2
    file = descriptor_pb2.FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
    (service,) = file.service
    assert [method.name for method in service.method] == ["Create", "Get", "List", "Update", "Delete"]
    assert "CatalogReportRequest" not in {message.name for message in file.message_type}
