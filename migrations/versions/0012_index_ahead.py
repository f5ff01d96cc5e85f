"""The index of a film that is sent before its bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("upload_uploads") as uploads:
        uploads.add_column(sa.Column("index_key", sa.String(512)))
        uploads.add_column(sa.Column("index_length", sa.BigInteger))


def downgrade() -> None:
    with op.batch_alter_table("upload_uploads") as uploads:
        uploads.drop_column("index_length")
        uploads.drop_column("index_key")
