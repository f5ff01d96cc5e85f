"""The HTTP edge: problem documents for everything, closed routes, request ids, health and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody

from streamgate.domain import deadline
from streamgate.domain.clock import SystemClock
from streamgate.domain.errors import (
    BY_CODE,
    ConfigurationError,
    FieldError,
    NotEntitled,
    StreamGateError,
    Unauthenticated,
    Unavailable,
)
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.kernel import Check
from streamgate.runtime import problems
from streamgate.runtime.clients import Clients
from streamgate.runtime.dispatch import Dispatch
from streamgate.runtime.edge import Edge
from streamgate.runtime.health import HealthBoard
from streamgate.runtime.http import api, least
from streamgate.runtime.telemetry import Metrics

CALLERS = {
    "Bearer viewer": Caller(account="eip155:1:0xaa", role=Role.VIEWER),
    "Bearer creator": Caller(account="eip155:1:0xbb", role=Role.CREATOR),
    "Bearer admin": Caller(account="admin", role=Role.ADMIN),
}


class Authenticator:
    async def caller(self, authorization: str | None) -> Caller:
        if authorization is None:
            return ANONYMOUS
        if authorization in CALLERS:
            return CALLERS[authorization]
        raise Unauthenticated("This credential is not valid.")


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    count: int = 1


class Things(Controller):
    path = "/api/v1/things"

    @get("/", opt=least(Role.ANONYMOUS))
    async def listing(self, caller: NamedDependency[Caller], limit: FromQuery[int] = 20) -> dict[str, Any]:
        return {"account": caller.account, "limit": limit}

    @post("/", opt=least(Role.CREATOR))
    async def create(self, data: JSONBody[Draft], caller: NamedDependency[Caller]) -> Draft:
        return data

    @get("/refused", opt=least(Role.ANONYMOUS))
    async def refused(self) -> None:
        raise NotEntitled("You need one token.", extra={"leaves": [{"path": "/any/0"}]})

    @get("/away", opt=least(Role.ANONYMOUS))
    async def away(self) -> None:
        raise Unavailable("The chain does not answer.", retry_after=0.2)

    @get("/broken", opt=least(Role.ANONYMOUS))
    async def broken(self) -> None:
        raise RuntimeError("secret detail")


async def raw(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/p/boom":
        raise RuntimeError("secret detail")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"media"})


async def failing() -> dict[str, Check]:
    raise OSError("secret path")


async def fine() -> dict[str, Check]:
    return {"": Check("ok", "all of it")}


@pytest.fixture
def board() -> HealthBoard:
    board = HealthBoard("monolith", "1.2.3", SystemClock())
    board.add("fine", fine)
    return board


@pytest.fixture
async def client(board: HealthBoard) -> AsyncIterator[httpx.AsyncClient]:
    authenticator = Authenticator()
    metrics = Metrics("monolith", "1.2.3")
    dispatch = Dispatch(
        api([Things], authenticator),
        {"/p/": raw},
        authenticator=authenticator,
        board=board,
        metrics=metrics,
        metrics_token="metrics-token",
        is_ready=lambda: True,
    )
    edge = Edge(dispatch, metrics=metrics, clients=Clients(), body_timeout_s=5)
    transport = httpx.ASGITransport(app=edge, client=("203.0.113.9", 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://films.example") as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:streamgate:problem:{code}")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["detail"].endswith((".", "…."))
    assert "secret" not in answer.text
    return body


async def test_an_open_route_takes_anonymous_callers_and_known_ones(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/things")).json() == {"account": None, "limit": 20}
    answer = await client.get("/api/v1/things", headers={"Authorization": "Bearer viewer"})
    assert answer.json()["account"] == "eip155:1:0xaa"


async def test_an_invalid_credential_is_refused_even_where_none_is_needed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/things", headers={"Authorization": "Bearer wrong"})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_closed_route_tells_anonymous_callers_from_those_who_may_not(client: httpx.AsyncClient) -> None:
    problem(await client.post("/api/v1/things", json={"title": "a"}), 401, "unauthenticated")
    answer = await client.post("/api/v1/things", json={"title": "a"}, headers={"Authorization": "Bearer viewer"})
    assert "creator" in problem(answer, 403, "forbidden")["detail"]
    answer = await client.post("/api/v1/things", json={"title": "a"}, headers={"Authorization": "Bearer admin"})
    assert (answer.status_code, answer.json()) == (201, {"title": "a", "count": 1})


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"json": {"title": 7}}, "/title"),
        ({"json": {"title": "a", "count": "x"}}, "/count"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, None),
        ({"json": {"title": "a", "other": 1}}, None),
    ],
)
async def test_a_wrong_body_says_where(client: httpx.AsyncClient, sent: dict[str, Any], pointer: str | None) -> None:
    sent["headers"] = {**sent.get("headers", {}), "Authorization": "Bearer creator"}
    body = problem(await client.post("/api/v1/things", **sent), 422, "validation_failed")
    if pointer is not None:
        assert [error["pointer"] for error in body["errors"]] == [pointer]


async def test_a_wrong_query_says_where(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/api/v1/things?limit=x"), 422, "validation_failed")
    assert body["errors"][0]["pointer"] == "?limit"


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/nothing"), 404, "not_found")
    answer = await client.delete("/api/v1/things")
    problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


async def test_an_error_of_the_tree_keeps_its_members(client: httpx.AsyncClient) -> None:
    body = problem(await client.get("/api/v1/things/refused"), 403, "not_entitled")
    assert body["leaves"] == [{"path": "/any/0"}]


async def test_unavailable_says_when_to_come_again(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/things/away")
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_what_nobody_expected_is_an_internal_problem_without_its_detail(client: httpx.AsyncClient) -> None:
    problem(await client.get("/api/v1/things/broken"), 500, "internal")
    problem(await client.get("/p/boom"), 500, "internal")


async def test_the_callers_request_id_is_kept_when_it_is_modest(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/things", headers={"X-Request-Id": "abc-12345678"})
    assert answer.headers["x-request-id"] == "abc-12345678"
    answer = await client.get("/api/v1/things", headers={"X-Request-Id": "x" * 65})
    assert len(answer.headers["x-request-id"]) == 24


async def test_health_hides_details_from_everybody_but_administrators(
    client: httpx.AsyncClient, board: HealthBoard
) -> None:
    board.add("store", failing)
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["checks"]["store"] == {"status": "down", "detail": ""}
    answer = await client.get("/health", headers={"Authorization": "Bearer admin"})
    assert answer.json()["checks"] == {
        "fine": {"status": "ok", "detail": "all of it", "values": {}},
        "store": {"status": "down", "detail": "OSError", "values": {}},
    }


async def test_metrics_are_closed_to_strangers_and_have_bounded_labels(client: httpx.AsyncClient) -> None:
    problem(await client.get("/metrics"), 403, "forbidden")
    for number in range(20):
        await client.get(f"/p/{number}/x")
        await client.get(f"/api/v1/nothing/{number}")
    text = (await client.get("/metrics", headers={"Authorization": "Bearer metrics-token"})).text
    assert 'sg_http_requests_total{method="GET",route="/p/",status="200"} 20.0' in text
    assert 'sg_http_requests_total{method="GET",route="unmatched",status="404"} 20.0' in text
    assert (await client.get("/metrics", headers={"Authorization": "Bearer admin"})).status_code == 200


async def test_a_proxy_on_this_machine_does_not_open_metrics(board: HealthBoard) -> None:
    authenticator = Authenticator()
    app = Dispatch(
        api([], authenticator),
        {},
        authenticator=authenticator,
        board=board,
        metrics=Metrics("m", "1"),
        metrics_token=None,
        is_ready=lambda: True,
    )
    edge = Edge(app, metrics=Metrics("m", "1"), clients=Clients(), body_timeout_s=5)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="http://x") as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})).status_code == 403


async def test_readiness_ends_before_anything_else() -> None:
    ready = [True]
    authenticator = Authenticator()
    app = Dispatch(
        api([], authenticator),
        {},
        authenticator=authenticator,
        board=HealthBoard("m", "1", SystemClock()),
        metrics=Metrics("m", "1"),
        metrics_token=None,
        is_ready=lambda: ready[0],
    )
    edge = Edge(app, metrics=Metrics("m", "1"), clients=Clients(), body_timeout_s=5)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="http://x") as client:
        assert (await client.get("/health/ready")).status_code == 200
        ready[0] = False
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200


def test_a_route_that_does_not_say_who_may_call_it_stops_the_start() -> None:
    class Open(Controller):
        @get("/open")
        async def read(self) -> None: ...

    with pytest.raises(ConfigurationError, match="/open does not say who may call it"):
        api([Open], Authenticator())


def test_two_routes_at_one_place_stop_the_start() -> None:
    class Again(Controller):
        @get("/api/v1/things", opt=least(Role.ADMIN))
        async def read(self) -> None: ...

    with pytest.raises(ConfigurationError, match="do not fit together"):
        api([Things, Again], Authenticator())


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_code_has_a_status_and_crosses_a_wire(code: str) -> None:
    error = BY_CODE[code]("A sentence.", errors=(FieldError("/a", "b"),), retry_after=3, extra={"x": 1})
    status, body = problems.document(error, "r")
    assert 400 <= status < 600
    assert json.loads(body)["errors"] == [{"pointer": "/a", "detail": "b"}]
    again = StreamGateError.from_wire(json.loads(json.dumps(error.to_wire())))
    assert (type(again), again.detail, again.errors, again.retry_after, again.extra) == (
        type(error),
        error.detail,
        error.errors,
        3,
        {"x": 1},
    )


async def asked(app: Any, seconds: str | None) -> httpx.Response:
    """A request that says how long it may take."""
    edge = Edge(app, metrics=Metrics("m", "1"), clients=Clients(), body_timeout_s=5)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="http://x") as client:
        return await client.get("/x", headers={} if seconds is None else {"x-streamgate-deadline": seconds})


async def started(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def ended(send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def test_an_answer_that_has_not_begun_in_time_is_504_and_its_work_is_ended() -> None:
    over = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    answer = await asked(app, "0.05")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert over.is_set()


async def test_once_the_answer_has_begun_it_may_take_as_long_as_it_takes() -> None:
    left: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(deadline.remaining_s())
        await started(send)
        left.append(deadline.remaining_s())
        await asyncio.sleep(0.15)
        await ended(send)

    answer = await asked(app, "0.1")
    assert (answer.status_code, answer.content) == (200, b"x")
    assert left[0] is not None
    assert 0 < left[0] <= 0.1
    assert left[1] is None


async def test_work_that_outlives_its_request_is_not_bound_by_its_deadline() -> None:
    left: list[float | None] = []
    tasks = []

    async def later() -> None:
        await asyncio.sleep(0.1)
        left.append(deadline.remaining_s())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(later()))
        await asyncio.Event().wait()

    assert (await asked(app, "0.05")).status_code == 504
    await asyncio.gather(*tasks)
    assert left == [None]


@pytest.mark.parametrize("seconds", [None, "", "soon", "-1", "1e9", "nan", "inf", "0x1", "1000", "0.1 0.2"])
async def test_what_is_no_number_of_seconds_binds_nothing(seconds: str | None) -> None:
    left: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(deadline.remaining_s())
        await started(send)
        await ended(send)

    assert (await asked(app, seconds)).status_code == 200
    assert left == [None]
