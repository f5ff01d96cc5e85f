"""Tables of uploads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()

uploads = Table(
    "upload_uploads",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("asset_id", String(24)),
    Column("state", String(10), nullable=False),
    Column("length", BigInteger),
    Column("offset", BigInteger, nullable=False),
    Column("partial", Boolean, nullable=False, server_default=text("false")),
    Column("joined", Text),
    Column("metadata", Text, nullable=False),
    Column("filename", String(255)),
    Column("filetype", String(255)),
    Column("lock_token", String(32)),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("index_key", String(512)),
    Column("index_length", BigInteger),
)
"""``state``: open, complete, joined (a partial that became part of a final one), expired. ``length`` None: not announced yet.
``joined``: the Upload-Concat header of a final upload. ``index_key``: the object with the last ``index_length`` bytes of the file,
sent ahead. ``lock_token``: the writer that may move the offset."""

parts = Table(
    "upload_parts",
    metadata,
    Column("key", String(512), primary_key=True),
    Column("holder", String(24), nullable=False),
    Column("position", Integer, nullable=False),
    Column("length", BigInteger, nullable=False),
)
"""Objects in storage and who holds them: an upload while it runs, afterwards the film."""

Index("upload_uploads_owner", uploads.c.owner)
Index("upload_uploads_asset", uploads.c.asset_id)
Index("upload_uploads_expires", uploads.c.state, uploads.c.expires_ms)
Index("upload_parts_holder", parts.c.holder, parts.c.position)
