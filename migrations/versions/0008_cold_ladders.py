"""When films were last watched, and whose ladders were dropped since."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("transcoder_films") as films:
        films.add_column(sa.Column("watched_ms", sa.BigInteger, nullable=False, server_default="0"))
        films.add_column(sa.Column("cold", sa.Boolean, nullable=False, server_default=sa.text("false")))
    # Nobody knows when they were watched: their time begins now, or rather when something last happened to them.
    op.execute("UPDATE transcoder_films SET watched_ms = updated_ms")
    op.create_index("transcoder_films_watched", "transcoder_films", ["watched_ms"])


def downgrade() -> None:
    op.drop_index("transcoder_films_watched", "transcoder_films")
    with op.batch_alter_table("transcoder_films") as films:
        films.drop_column("cold")
        films.drop_column("watched_ms")
