"""Playback sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "streaming_sessions",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("asset_id", sa.String(24), nullable=False),
        sa.Column("account", sa.String(128)),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("auth_session_id", sa.String(24)),
        sa.Column("auth_key_id", sa.String(24)),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("streaming_sessions_account", "streaming_sessions", ["account", "id"])
    op.create_index("streaming_sessions_asset", "streaming_sessions", ["asset_id"])
    op.create_index("streaming_sessions_auth_session", "streaming_sessions", ["auth_session_id"])
    op.create_index("streaming_sessions_auth_key", "streaming_sessions", ["auth_key_id"])
    op.create_index("streaming_sessions_expires", "streaming_sessions", ["expires_ms"])


def downgrade() -> None:
    op.drop_table("streaming_sessions")
