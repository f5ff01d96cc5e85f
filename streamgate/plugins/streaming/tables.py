"""Tables of playback."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, MetaData, SmallInteger, String, Table, Text

metadata = MetaData()

sessions = Table(
    "streaming_sessions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("asset_id", String(24), nullable=False),
    Column("account", String(128)),
    Column("role", SmallInteger, nullable=False),
    Column("auth_session_id", String(24)),
    Column("auth_key_id", String(24)),
    Column("created_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("token_ids", Text, nullable=False, server_default="[]"),
)
"""``token_ids``: the tokens that the viewer named, as a JSON list of decimal strings."""

seats = Table(
    "streaming_seats",
    metadata,
    Column("token", String(200), primary_key=True),
    Column("session_id", String(24), primary_key=True),
    Column("taken_ms", BigInteger, nullable=False),
)
"""Which session watches with which token (CAIP-19); a row outlives its session until it is swept."""

Index("streaming_seats_session", seats.c.session_id)
Index("streaming_sessions_account", sessions.c.account, sessions.c.id)
Index("streaming_sessions_asset", sessions.c.asset_id)
Index("streaming_sessions_auth_session", sessions.c.auth_session_id)
Index("streaming_sessions_auth_key", sessions.c.auth_key_id)
Index("streaming_sessions_expires", sessions.c.expires_ms)
