"""Ranges and validators of media answers, against the meaning of RFC 9110."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamgate.plugins.streaming.library import Body
from streamgate.plugins.streaming.media_app import respond

DATA = bytes(range(100))
BODY = Body(DATA, "video/iso.segment", '"tag"', immutable=True)


async def ask(method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"method": method, "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]}
    await respond(scope, send, BODY)
    start, body = sent
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body["body"]


async def test_the_whole() -> None:
    status, headers, body = await ask()
    assert (status, body, headers["content-length"]) == (200, DATA, "100")
    assert (headers["accept-ranges"], headers["etag"]) == ("bytes", '"tag"')
    assert headers["cache-control"] == "private, max-age=3600"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=90-", 90, 99),
        ("bytes=-10", 90, 99),
        ("bytes=50-5000", 50, 99),
        ("bytes=-500", 0, 99),
    ],
)
async def test_a_range(header: str, first: int, last: int) -> None:
    status, headers, body = await ask(range=header)
    assert (status, body) == (206, DATA[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/100"
    assert headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=500-600", "bytes=-0"])
async def test_a_range_outside(header: str) -> None:
    status, headers, body = await ask(range=header)
    assert (status, headers["content-range"], body) == (416, "bytes */100", b"")


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes= 1-2", "", "bytes=" + "9" * 40]
)
async def test_what_is_no_single_range_is_answered_with_the_whole(header: str) -> None:
    assert (await ask(range=header))[::2] == (200, DATA)


async def test_validators() -> None:
    for tag in ('"tag"', 'W/"tag"', '"other", "tag"', "*"):
        status, headers, body = await ask(if_none_match=tag)
        assert (status, body) == (304, b"")
        assert "content-length" not in headers
        assert headers["etag"] == '"tag"'
    assert (await ask(if_none_match='"other"'))[0] == 200
    assert (await ask(if_range='"tag"', range="bytes=0-0"))[0] == 206
    assert (await ask(if_range='"other"', range="bytes=0-0"))[0] == 200


async def test_head_has_everything_but_the_body() -> None:
    status, headers, body = await ask("HEAD")
    assert (status, headers["content-length"], body) == (200, "100", b"")


@given(st.integers(0, 200), st.integers(0, 200))
async def test_every_range_is_the_slice_that_it_names(first: int, last: int) -> None:
    status, headers, body = await ask(range=f"bytes={first}-{last}")
    if last < first:
        assert (status, body) == (200, DATA)
    elif first >= len(DATA):
        assert status == 416
    else:
        assert (status, body) == (206, DATA[first : last + 1])
        assert headers["content-length"] == str(len(body))
