"""Scopes of API keys, seats of tokens, and the last runs of schedules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("auth_api_keys") as keys:
        keys.add_column(sa.Column("scopes", sa.String(400)))
    with op.batch_alter_table("streaming_sessions") as sessions:
        sessions.add_column(sa.Column("token_ids", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "streaming_seats",
        sa.Column("token", sa.String(200), primary_key=True),
        sa.Column("session_id", sa.String(24), primary_key=True),
        sa.Column("taken_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("streaming_seats_session", "streaming_seats", ["session_id"])
    op.create_table(
        "schedules",
        sa.Column("service", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("every_s", sa.Float, nullable=False),
        sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("finished_ms", sa.BigInteger),
        sa.Column("error", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("schedules")
    op.drop_table("streaming_seats")
    with op.batch_alter_table("streaming_sessions") as sessions:
        sessions.drop_column("token_ids")
    with op.batch_alter_table("auth_api_keys") as keys:
        keys.drop_column("scopes")
