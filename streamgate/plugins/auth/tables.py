"""Tables of sign-in and policies."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

challenges = Table(
    "auth_challenges",
    metadata,
    Column("message_hash", String(64), primary_key=True),
    Column("address", String(42), nullable=False),
    Column("binding", String(64)),
    Column("expires_ms", BigInteger, nullable=False),
)
"""Issued and not yet used; ``message_hash``: SHA-256 of the message in hex."""

sessions = Table(
    "auth_sessions",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("account", String(128), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
)

refresh_tokens = Table(
    "auth_refresh_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("session_id", String(24), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger),
)

api_keys = Table(
    "auth_api_keys",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("account", String(128), nullable=False),
    Column("role", String(10), nullable=False),
    Column("name", String(200), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("scopes", String(400)),
)
"""``scopes``: separated by spaces; None: everything that the role may."""

policies = Table(
    "auth_policies",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("name", String(200), nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""One row per version, never changed; the newest one counts. ``document`` is JSON text."""

Index("auth_challenges_expires", challenges.c.expires_ms)
Index("auth_sessions_account", sessions.c.account, sessions.c.id)
Index("auth_refresh_tokens_session", refresh_tokens.c.session_id)
Index("auth_api_keys_account", api_keys.c.account, api_keys.c.id)
Index("auth_policies_owner", policies.c.owner, policies.c.id)
