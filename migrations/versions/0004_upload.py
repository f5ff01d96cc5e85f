"""Uploads and the objects they hold."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upload_uploads",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("asset_id", sa.String(24)),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("length", sa.BigInteger),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("partial", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("joined", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("filename", sa.String(255)),
        sa.Column("filetype", sa.String(255)),
        sa.Column("lock_token", sa.String(32)),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("upload_uploads_owner", "upload_uploads", ["owner"])
    op.create_index("upload_uploads_asset", "upload_uploads", ["asset_id"])
    op.create_index("upload_uploads_expires", "upload_uploads", ["state", "expires_ms"])
    op.create_table(
        "upload_parts",
        sa.Column("key", sa.String(512), primary_key=True),
        sa.Column("holder", sa.String(24), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
    )
    op.create_index("upload_parts_holder", "upload_parts", ["holder", "position"])


def downgrade() -> None:
    op.drop_table("upload_parts")
    op.drop_table("upload_uploads")
