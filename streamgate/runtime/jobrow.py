"""A job as stored, and how often it may go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_FAILURES = 5
"""Reported errors that a job may have; the next one makes it ``failed``."""

MAX_CRASHES = 50
"""Expired leases that a job may have; the next one makes it ``failed``."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as stored. States: queued, running, done, failed, canceled. Lower ``priority`` runs first.

    ``headers``: what follows the work (`runtime.trace`).
    """

    id: str
    kind: str
    queue: str
    key: str | None
    state: str
    priority: int
    payload: bytes
    attempt: int
    failures: int
    crashes: int
    progress: float
    subject: str | None
    owner: str | None
    cancel_requested: bool
    errors: list[dict[str, Any]]
    created_ms: int
    run_at_ms: int
    started_ms: int | None
    finished_ms: int | None
    lease_token: str | None
    lease_until_ms: int | None
    worker: str | None
    headers: dict[str, str]
