"""Films and their chunks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "transcoder_films",
        sa.Column("asset_id", sa.String(24), primary_key=True),
        sa.Column("owner", sa.String(128)),
        sa.Column("plan_id", sa.String(24)),
        sa.Column("plan", sa.LargeBinary),
        sa.Column("canceled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("error_code", sa.String(32)),
        sa.Column("error_detail", sa.Text),
        sa.Column("poster_key", sa.String(512)),
        sa.Column("poster_wish", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("reported", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "transcoder_films_open",
        "transcoder_films",
        ["updated_ms"],
        sqlite_where=sa.text("settled = 0"),
        postgresql_where=sa.text("NOT settled"),
    )
    op.create_table(
        "transcoder_chunks",
        sa.Column("plan_id", sa.String(24), primary_key=True),
        sa.Column("rendition", sa.String(32), primary_key=True),
        sa.Column("chunk", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("asset_id", sa.String(24), nullable=False),
        sa.Column("prefix", sa.String(512)),
        sa.Column("lengths", sa.LargeBinary),
        sa.Column("error_code", sa.String(32)),
        sa.Column("done_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("transcoder_chunks_asset", "transcoder_chunks", ["asset_id"])


def downgrade() -> None:
    op.drop_table("transcoder_chunks")
    op.drop_table("transcoder_films")
