"""Jobs, outbox, inbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("key", sa.String(200)),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("progress", sa.Float, nullable=False, server_default="0"),
        sa.Column("subject", sa.String(64)),
        sa.Column("owner", sa.String(128)),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("errors", sa.Text, nullable=False, server_default="[]"),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("run_at_ms", sa.BigInteger, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("finished_ms", sa.BigInteger),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_until_ms", sa.BigInteger),
        sa.Column("worker", sa.String(64)),
    )
    live = sa.text("state IN ('queued', 'running')")
    queued = sa.text("state = 'queued'")
    running = sa.text("state = 'running'")
    op.create_index("jobs_live_key", "jobs", ["key"], unique=True, sqlite_where=live, postgresql_where=live)
    op.create_index(
        "jobs_runnable",
        "jobs",
        ["queue", "priority", "run_at_ms", "id"],
        sqlite_where=queued,
        postgresql_where=queued,
    )
    op.create_index("jobs_leased", "jobs", ["lease_until_ms"], sqlite_where=running, postgresql_where=running)
    op.create_index("jobs_subject", "jobs", ["subject"])
    op.create_index("jobs_finished", "jobs", ["finished_ms"])
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(24), nullable=False, unique=True),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("next_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delivered_ms", sa.BigInteger),
    )
    waiting = sa.text("delivered_ms IS NULL")
    op.create_index("outbox_waiting", "outbox", ["next_ms"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(64), primary_key=True),
        sa.Column("event_id", sa.String(24), primary_key=True),
        sa.Column("done_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("inbox")
    op.drop_table("outbox")
    op.drop_table("jobs")
