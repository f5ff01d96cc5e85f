"""Tables of the transcoder."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, text

metadata = MetaData()

films = Table(
    "transcoder_films",
    metadata,
    Column("asset_id", String(24), primary_key=True),
    Column("owner", String(128)),
    Column("plan_id", String(24)),
    Column("plan", LargeBinary),
    Column("canceled", Boolean, nullable=False, server_default=text("false")),
    Column("error_code", String(32)),
    Column("error_detail", Text),
    Column("poster_key", String(512)),
    Column("poster_wish", BigInteger, nullable=False, server_default="0"),
    Column("settled", Boolean, nullable=False, server_default=text("false")),
    Column("revision", BigInteger, nullable=False),
    Column("reported", BigInteger, nullable=False, server_default="0"),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("watched_ms", BigInteger, nullable=False, server_default="0"),
    Column("cold", Boolean, nullable=False, server_default=text("false")),
    Column("growth", LargeBinary),
    Column("growing", Boolean),
)
"""``plan``: msgpack of `media.model.MediaPlan`. ``revision`` grows with every change, ``reported`` is the last one that the
catalog has taken. ``settled``: the state is final, so that nothing needs looking after. ``watched_ms``: when the film was last
watched (or uploaded), to the hour. ``cold``: its ladder was dropped since then. ``growth``: msgpack of `store.Growth`, what plays
before there is a plan. ``growing``: whether the upload goes on; NULL until it is known to, false for ever once it has ended."""

chunks = Table(
    "transcoder_chunks",
    metadata,
    Column("plan_id", String(24), primary_key=True),
    Column("rendition", String(32), primary_key=True),
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("asset_id", String(24), nullable=False),
    Column("prefix", String(512)),
    Column("lengths", LargeBinary),
    Column("error_code", String(32)),
    Column("done_ms", BigInteger, nullable=False),
)
"""One row per chunk and rendition that is encoded (``prefix`` and ``lengths``: msgpack list of bytes per segment) or cannot be
(``error_code``). What has no row is still to be made."""

Index("transcoder_films_watched", films.c.watched_ms)
Index("transcoder_chunks_asset", chunks.c.asset_id)
Index(
    "transcoder_films_open",
    films.c.updated_ms,
    sqlite_where=text("settled = 0"),
    postgresql_where=text("NOT settled"),
)
