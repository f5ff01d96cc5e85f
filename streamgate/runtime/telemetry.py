"""Logs without secrets, and metrics with bounded labels."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECRET_KEY = re.compile(r"(token|secret|signature|password|authorization|cookie|api_key|private)", re.IGNORECASE)
SECRET_TEXT = re.compile(
    r"(/p/)[A-Za-z0-9_-]{16,}|(Bearer\s+)[\w.~+/=-]+|\b(sg_[a-z0-9]+_)[A-Za-z0-9_-]{8,}|\b(eyJ)[\w-]{8,}\.[\w-]+\.[\w-]+",
    re.IGNORECASE,
)
MASK = "…"

Event = MutableMapping[str, Any]


def redact_text(text: str) -> str:
    """``text`` with playback tokens, bearer credentials, API keys and JWTs masked."""
    return SECRET_TEXT.sub(lambda m: next((g for g in m.groups() if g), "") + MASK, text)


def redact(_logger: Any, _method: str, event: Event) -> Event:
    """structlog processor: values under secret-looking names are masked, and secrets inside any text."""
    for key, value in event.items():
        if SECRET_KEY.search(key) and value is not None:
            event[key] = MASK
        elif isinstance(value, str):
            event[key] = redact_text(value)
    return event


def configure_logging(*, level: str, form: str, service: str, version: str) -> None:
    """Everything that logs (structlog and the standard library) writes one line per event to stderr.

    ``form``: ``json``, ``console`` or ``auto`` (console on a terminal, else JSON).
    """
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"

    def name_service(_logger: Any, _method: str, event: Event) -> Event:
        event.setdefault("service", service)
        event.setdefault("version", version)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Any] = (
        [structlog.processors.format_exc_info, name_service, redact, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.processors.format_exc_info, redact, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic", "aiosqlite", "sqlalchemy", "asyncio"):
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one process, in a registry of their own. Labels are route templates and closed lists only."""

    def __init__(self, service: str, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        build = Gauge("sg_build_info", "The running version.", ["service", "version"], registry=self.registry)
        build.labels(service, version).set(1)
        self.requests = Counter(
            "sg_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "sg_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("sg_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.sent = Counter("sg_http_response_bytes_total", "Body bytes sent.", ["route"], registry=self.registry)
        self.calls = Counter("sg_rpc_requests_total", "Calls answered.", ["method", "code"], registry=self.registry)
        self.call_seconds = Histogram(
            "sg_rpc_request_duration_seconds",
            "Time from a call's arrival to its answer.",
            ["method"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.lag = Gauge(
            "sg_event_loop_lag_seconds", "How late the event loop ran its last timer.", registry=self.registry
        )

        self._at_once: dict[str, list[int]] = {}
        self._children: dict[tuple[str, str, int], tuple[Any, Any, Any]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float, size: int) -> None:
        """A request was answered with ``size`` bytes of body, ``seconds`` after it came."""
        found = self._children.get((method, route, status))
        if found is None:
            # Finding what belongs to labels takes longer than counting.
            found = (
                self.requests.labels(method, route, str(status)),
                self.seconds.labels(method, route),
                self.sent.labels(route),
            )
            self._children[method, route, status] = found
        requests, duration, sent = found
        requests.inc()
        duration.observe(seconds)
        sent.inc(size)

    def at_once(self, route: str, size: int) -> None:
        """A GET was answered with ``size`` bytes straight from memory: counted among the others when they are read.

        Such answers take microseconds and are not in the histogram of durations.
        """
        counts = self._at_once.get(route)
        if counts is None:
            counts = self._at_once[route] = [0, 0]
        counts[0] += 1
        counts[1] += size

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        for route, (count, size) in self._at_once.items():
            self.requests.labels("GET", route, "200").inc(count)
            self.sent.labels(route).inc(size)
        self._at_once.clear()
        return generate_latest(self.registry)
