"""Metrics of playback."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class PlaybackCounters:
    """Registered once per process."""

    def __init__(self, registry: CollectorRegistry, live: Callable[[], int]) -> None:
        self._decisions = Counter(
            "sg_gate_decisions_total", "Looks of the gate at live sessions.", ["outcome"], registry=registry
        )
        gauge = Gauge("sg_playback_sessions", "Sessions served within the idle time.", registry=registry)
        gauge.set_function(live)

    def decided(self, outcome: str) -> None:
        """Count one look: ``allow``, ``deny``, ``unknown``, ``revoked``."""
        self._decisions.labels(outcome).inc()
