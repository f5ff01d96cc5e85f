"""Values come back from their protobuf form as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from streamgate.contracts.auth import KeyRequest, PolicyView
from streamgate.contracts.declare import contracts
from streamgate.contracts.metadata import AssetChanges
from streamgate.contracts.monitor import CheckResult, ServiceStatus, SystemStatus
from streamgate.contracts.transcoder import RenditionPlan, SegmentObject
from streamgate.domain.errors import BY_CODE, FieldError, NotEntitled, ValidationFailed
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.rpc.codec import Codec
from streamgate.runtime.rpc.problem import MOST_EXTRA, STATUS

CHECK = CheckResult("ok", "fine", {"free_bytes": 2.0})
PLAN = RenditionPlan(
    name="v360",
    kind="video",
    codecs="avc1",
    timescale=90000,
    boundaries=(0, 180000, 2**40),
    bandwidth=1,
    init_key="k",
    frame_rate=(30000, 1001),
)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(contracts())


@pytest.mark.parametrize(
    "value",
    [
        AssetChanges(),
        AssetChanges(policy_id=None, title=""),
        AssetChanges(policy_id="pol_x"),
        KeyRequest(name="key"),
        KeyRequest(name="key", scopes=()),
        KeyRequest(name="key", scopes=("jobs:read",)),
        PolicyView(
            id="i",
            version=3,
            name="n",
            document={"v": 1, "big": 2**70, "list": [None, 1.5, {}]},
            created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        ),
        SystemStatus(
            status="ok",
            services=(ServiceStatus(service="auth", status="down", version="1", uptime_s=0.5, checks={"db": CHECK}),),
        ),
        PLAN,
        Caller(account="admin", role=Role.ADMIN, scopes=("jobs:read",)),
        Caller(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back(codec: Codec, value: Any) -> None:
    assert codec.decoder(type(value))(codec.encoder(type(value))(value)) == value


@pytest.mark.parametrize("value", [SegmentObject("k", 2**63), SegmentObject("\ud800", 1)], ids=["number", "text"])
def test_what_protobuf_cannot_hold_is_refused(codec: Codec, value: SegmentObject) -> None:
    with pytest.raises(ValidationFailed):
        codec.encoder(SegmentObject)(value)


def test_bytes_that_are_no_message_are_refused(codec: Codec) -> None:
    with pytest.raises(ValidationFailed):
        codec.decoder(SegmentObject)(b"\xff\xff\xff")


def test_a_text_that_is_not_among_the_allowed_is_refused(codec: Codec) -> None:
    unknown = codec.encoder(CheckResult)(CheckResult("perhaps"))  # type: ignore[arg-type]
    with pytest.raises(ValidationFailed):
        codec.decoder(CheckResult)(unknown)


@pytest.mark.parametrize("code", BY_CODE)
def test_every_error_has_a_status_and_comes_back(codec: Codec, code: str) -> None:
    assert code in STATUS
    error = BY_CODE[code]("Why.", errors=(FieldError("/a", "b"),), retry_after=1.5, extra={"leaves": [1]})
    assert codec.error(codec.details(error, 5)).to_wire() == error.to_wire()


def test_more_than_fits_into_trailers_is_left_out(codec: Codec) -> None:
    error = NotEntitled("No.", extra={"leaves": ["x" * MOST_EXTRA]})
    back = codec.error(codec.details(error, 7))
    assert (type(back), back.detail, back.extra) == (NotEntitled, "No.", {})


@pytest.mark.parametrize("rubbish", [b"", b"\xff", b"\x08\x05"])
def test_details_that_are_not_ours_are_an_internal_error(codec: Codec, rubbish: bytes) -> None:
    assert codec.error(rubbish).code == "internal"
