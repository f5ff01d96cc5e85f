"""Sign-in, API keys, policies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "auth_challenges",
        sa.Column("message_hash", sa.String(64), primary_key=True),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("binding", sa.String(64)),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("auth_challenges_expires", "auth_challenges", ["expires_ms"])
    op.create_table(
        "auth_sessions",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("account", sa.String(128), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("auth_sessions_account", "auth_sessions", ["account", "id"])
    op.create_table(
        "auth_refresh_tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("session_id", sa.String(24), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("used_ms", sa.BigInteger),
    )
    op.create_index("auth_refresh_tokens_session", "auth_refresh_tokens", ["session_id"])
    op.create_table(
        "auth_api_keys",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("account", sa.String(128), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("auth_api_keys_account", "auth_api_keys", ["account", "id"])
    op.create_table(
        "auth_policies",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("auth_policies_owner", "auth_policies", ["owner", "id"])


def downgrade() -> None:
    for table in ("auth_policies", "auth_api_keys", "auth_refresh_tokens", "auth_sessions", "auth_challenges"):
        op.drop_table(table)
