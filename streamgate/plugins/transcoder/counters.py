"""Metrics of encoding."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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

        self._speed = Gauge(
            "sg_encode_speed_ratio", "Seconds of film encoded in a second, over the last chunks.", registry=registry
        )
        self._runnable = Gauge("sg_transcoder_runnable_jobs", "Encoding jobs that could run now.", registry=registry)
        self._oldest = Gauge(
            "sg_transcoder_oldest_runnable_seconds",
            "Age of the oldest encoding job that could run now.",
            registry=registry,
        )
        self.speed = 0.0
        """Seconds of film (all its renditions) encoded in a second, a moving average over the last chunks; 0 before the first."""

    def encoded(self, chunks: int, seconds: float, film_s: float) -> None:
        """Count one chunk job that took ``seconds`` for ``film_s`` seconds of film; ``chunks``: of all renditions."""
        self._chunks.inc(chunks)
        self._seconds.observe(seconds)
        now = film_s / max(seconds, 0.001)
        self.speed = now if not self.speed else 0.8 * self.speed + 0.2 * now
        self._speed.set(self.speed)

    def waiting(self, runnable: int, oldest_s: float) -> None:
        """Tell what waits: by this replicas are added and taken away."""
        self._runnable.set(runnable)
        self._oldest.set(oldest_s)
