"""Fixtures of every test of endpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def usual_depth() -> Iterator[None]:
    """As in production: property tests that ran before may have raised the limit beyond what the C stack holds."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)
