"""Days after which a film's ladder is dropped, film by film."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("metadata_assets") as assets:
        assets.add_column(sa.Column("cold_days", sa.Float))
    own = sa.text("cold_days IS NOT NULL")
    op.create_index("metadata_assets_cold", "metadata_assets", ["id"], sqlite_where=own, postgresql_where=own)


def downgrade() -> None:
    op.drop_index("metadata_assets_cold", "metadata_assets")
    with op.batch_alter_table("metadata_assets") as assets:
        assets.drop_column("cold_days")
