"""What can be played of films that are still being uploaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("transcoder_films") as films:
        films.add_column(sa.Column("growth", sa.LargeBinary))
        films.add_column(sa.Column("growing", sa.Boolean))


def downgrade() -> None:
    with op.batch_alter_table("transcoder_films") as films:
        films.drop_column("growing")
        films.drop_column("growth")
