"""Metrics of encoding."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class EncodeCounters:
    """Registered once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._chunks = Counter("sg_encoded_chunks_total", "Chunks encoded, one per rendition.", registry=registry)
        self._seconds = Histogram(
            "sg_encode_duration_seconds",
            "Time to encode and store one chunk.",
            buckets=(0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )

    def encoded(self, renditions: int, seconds: float) -> None:
        """Count one chunk job."""
        self._chunks.inc(renditions)
        self._seconds.observe(seconds)
