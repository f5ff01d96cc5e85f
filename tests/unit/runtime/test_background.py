"""Periodic work goes on whatever happens to it, and ends with its block."""

from __future__ import annotations

import asyncio

import pytest

from streamgate.runtime.background import every


async def test_it_goes_on_after_a_failure_and_ends_with_the_block() -> None:
    times = 0
    often = asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times >= 4:
            often.set()
        raise ValueError

    async with every(0.005, work, name="failing", at_once=True):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert times == 1
        async with asyncio.timeout(2):
            await often.wait()
    last = times
    await asyncio.sleep(0.03)
    assert times == last


async def test_unless_told_it_does_not_begin_at_once() -> None:
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    async with every(0.05, work, name="later"):
        await asyncio.sleep(0.01)
        assert not ran.is_set()
        async with asyncio.timeout(2):
            await ran.wait()


async def test_what_is_in_the_middle_of_its_work_is_stopped_with_the_block() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(RuntimeError):  # noqa: PT012 (the block is what raises)
        async with every(60, work, name="long", at_once=True):
            await begun.wait()
            raise RuntimeError
    assert ended.is_set()
