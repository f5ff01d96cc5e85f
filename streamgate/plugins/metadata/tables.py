"""Tables of the catalog."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

assets = Table(
    "metadata_assets",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("title", String(1000), nullable=False),
    Column("description", Text, nullable=False),
    Column("visibility", String(10), nullable=False),
    Column("policy_id", String(24)),
    Column("state", String(12), nullable=False),
    Column("playable", Boolean, nullable=False),
    Column("progress", Float, nullable=False),
    Column("duration", Float),
    Column("width", Integer),
    Column("height", Integer),
    Column("media", LargeBinary),
    Column("error_code", String(32)),
    Column("error_detail", Text),
    Column("poster_key", String(512)),
    Column("revision", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger),
    Column("cold_days", Float),
)
"""``media``: msgpack of `store.MediaFacts`. A deleted film keeps its row, emptied, so that deleting stays idempotent."""

Index("metadata_assets_owner", assets.c.owner, assets.c.id)
Index("metadata_assets_visibility", assets.c.visibility, assets.c.id)
Index(
    "metadata_assets_cold",
    assets.c.id,
    sqlite_where=text("cold_days IS NOT NULL"),
    postgresql_where=text("cold_days IS NOT NULL"),
)
