"""When an upload is looked at, waited for, and left."""

from __future__ import annotations

import pytest

from streamgate.media.model import Grown
from streamgate.plugins.transcoder.growing import FAR, IDLE_S, next_step

LONG = IDLE_S + 1


@pytest.mark.parametrize(
    ("before", "arrived", "idle_s", "step"),
    [
        (Grown(wanted=0), 100, 0, "look"),
        (Grown(wanted=200, looked_at=100), 199, 0, "wait"),
        (Grown(wanted=200, looked_at=100), 200, 0, "look"),
        (Grown(wanted=200, looked_at=100), 200, LONG, "look"),
        (Grown(wanted=0, looked_at=100), 100, 0, "wait"),
        (Grown(wanted=200, looked_at=100), 199, LONG, "end"),
        (Grown(wanted=200 + FAR), 199, 0, "end"),
        (Grown(wanted=None, count=9, looked_at=100), 200, 0, "end"),
    ],
)
def test_what_follows_a_look(before: Grown, arrived: int, idle_s: float, step: str) -> None:
    assert next_step(before, arrived, idle_s) == step
