"""Work for a request ends when whoever asked has left, and only then."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from streamgate.plugins.streaming.presence import ClientLeft, Presence
from tests.support.asgi import listening


class App:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with Presence(receive):
                self.begun.set()
                await self.may.wait()
        except ClientLeft:
            self.ended.set_result("left")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})
        self.ended.set_result("answered")


@pytest.fixture
async def app() -> App:
    return App()


async def test_work_ends_when_the_client_leaves(app: App) -> None:
    async with listening(app) as port, httpx.AsyncClient() as http:
        asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        await app.begun.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            assert await app.ended == "left"


async def test_who_stays_is_answered_however_long_it_takes(app: App) -> None:
    async with listening(app) as port, httpx.AsyncClient() as http:
        asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        await app.begun.wait()
        await asyncio.sleep(0.25)
        app.may.set()
        assert (await asking).content == b"here"
        assert await app.ended == "answered"


async def test_who_cancels_for_another_reason_is_not_told_that_the_client_left() -> None:
    async def receive() -> dict[str, str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        with Presence(receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
