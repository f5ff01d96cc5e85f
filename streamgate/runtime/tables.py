"""Tables of the runtime: jobs, outbox, inbox."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("queue", String(64), nullable=False),
    Column("key", String(200)),
    Column("state", String(10), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("progress", Float, nullable=False, server_default="0"),
    Column("subject", String(64)),
    Column("owner", String(128)),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("errors", Text, nullable=False, server_default="[]"),
    Column("created_ms", BigInteger, nullable=False),
    Column("run_at_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("lease_token", String(32)),
    Column("lease_until_ms", BigInteger),
    Column("worker", String(64)),
    Column("headers", Text, nullable=False, server_default="{}"),
)

LIVE = text("state IN ('queued', 'running')")

Index("jobs_live_key", jobs.c.key, unique=True, sqlite_where=LIVE, postgresql_where=LIVE)
Index(
    "jobs_runnable",
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.run_at_ms,
    jobs.c.id,
    sqlite_where=text("state = 'queued'"),
    postgresql_where=text("state = 'queued'"),
)
Index(
    "jobs_leased",
    jobs.c.lease_until_ms,
    sqlite_where=text("state = 'running'"),
    postgresql_where=text("state = 'running'"),
)
Index("jobs_subject", jobs.c.subject)
Index("jobs_finished", jobs.c.finished_ms)

outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(24), nullable=False, unique=True),
    Column("subject", String(100), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("headers", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("delivered_ms", BigInteger),
)

Index(
    "outbox_waiting",
    outbox.c.next_ms,
    sqlite_where=text("delivered_ms IS NULL"),
    postgresql_where=text("delivered_ms IS NULL"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("event_id", String(24), primary_key=True),
    Column("done_ms", BigInteger, nullable=False),
)

schedules = Table(
    "schedules",
    metadata,
    Column("service", String(32), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("every_s", Float, nullable=False),
    Column("runs", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("error", Text),
)
"""Periodic work as it last ran; ``error`` None when that succeeded, ``finished_ms`` None while it runs."""
