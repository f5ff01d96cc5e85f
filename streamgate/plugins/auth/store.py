"""All SQL of sign-in and policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.plugins.auth.tables import api_keys, challenges, policies, refresh_tokens, sessions
from streamgate.runtime.database import Transaction


@dataclass(frozen=True, slots=True)
class StoredChallenge:
    """An issued challenge; ``binding``: base64url SHA-256 of the client's secret."""

    address: str
    binding: str | None
    expires_ms: int


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A sign-in session."""

    id: str
    account: str
    created_ms: int
    expires_ms: int
    ended_ms: int | None

    def live(self, now_ms: int) -> bool:
        """Whether it is neither ended nor over."""
        return self.ended_ms is None and self.expires_ms > now_ms


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key, without its secret."""

    id: str
    account: str
    role: str
    name: str
    prefix: str
    created_ms: int
    expires_ms: int | None
    ended_ms: int | None
    scopes: tuple[str, ...] = ()

    def live(self, now_ms: int) -> bool:
        """Whether it is neither ended nor over."""
        return self.ended_ms is None and (self.expires_ms is None or self.expires_ms > now_ms)


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """One version of a policy."""

    id: str
    version: int
    owner: str
    name: str
    document: dict[str, Any]
    created_ms: int


def _key(row: Row[Any]) -> StoredKey:
    return StoredKey(
        id=row.id,
        account=row.account,
        role=row.role,
        name=row.name,
        prefix=row.prefix,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        ended_ms=row.ended_ms,
        scopes=tuple(row.scopes.split()) if row.scopes else (),
    )


def _policy(row: Row[Any]) -> StoredPolicy:
    return StoredPolicy(row.id, row.version, row.owner, row.name, json.loads(row.document), row.created_ms)


async def add_challenge(tx: Transaction, message_hash: str, challenge: StoredChallenge) -> None:
    """Remember an issued message."""
    await tx.execute(
        insert(challenges).values(
            message_hash=message_hash,
            address=challenge.address,
            binding=challenge.binding,
            expires_ms=challenge.expires_ms,
        )
    )


async def take_challenge(tx: Transaction, message_hash: str) -> StoredChallenge | None:
    """Remove and return a challenge: of any number of callers at most one gets it."""
    row = (
        await tx.execute(delete(challenges).where(challenges.c.message_hash == message_hash).returning(challenges))
    ).first()
    return None if row is None else StoredChallenge(row.address, row.binding, row.expires_ms)


async def add_session(tx: Transaction, session: StoredSession) -> None:
    """A new session."""
    await tx.execute(
        insert(sessions).values(
            id=session.id, account=session.account, created_ms=session.created_ms, expires_ms=session.expires_ms
        )
    )


async def get_session(connection: AsyncConnection, session_id: str) -> StoredSession | None:
    """One session, ended or not."""
    row = (await connection.execute(select(sessions).where(sessions.c.id == session_id))).first()
    return None if row is None else StoredSession(*row)


async def live_sessions(connection: AsyncConnection, account: str, now_ms: int, limit: int) -> list[StoredSession]:
    """The live sessions of an account, newest first."""
    rows = await connection.execute(
        select(sessions)
        .where(sessions.c.account == account, sessions.c.ended_ms.is_(None), sessions.c.expires_ms > now_ms)
        .order_by(sessions.c.id.desc())
        .limit(limit)
    )
    return [StoredSession(*row) for row in rows]


async def extend_session(tx: Transaction, session_id: str, expires_ms: int) -> None:
    """A refresh: the session lives longer."""
    await tx.execute(update(sessions).where(sessions.c.id == session_id).values(expires_ms=expires_ms))


async def end_session(tx: Transaction, session_id: str, now_ms: int) -> bool:
    """End a session and its refresh tokens; False when it had ended already."""
    done = await tx.execute(
        update(sessions).where(sessions.c.id == session_id, sessions.c.ended_ms.is_(None)).values(ended_ms=now_ms)
    )
    return done.rowcount == 1


async def add_refresh(tx: Transaction, token_hash: str, session_id: str, now_ms: int) -> None:
    """A refresh token that can be used once."""
    await tx.execute(insert(refresh_tokens).values(token_hash=token_hash, session_id=session_id, created_ms=now_ms))


async def get_refresh(connection: AsyncConnection, token_hash: str) -> tuple[str, int | None] | None:
    """The session of a refresh token, and when it was used."""
    row = (await connection.execute(select(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash))).first()
    return None if row is None else (row.session_id, row.used_ms)


async def use_refresh(tx: Transaction, token_hash: str, now_ms: int) -> bool:
    """Mark a refresh token as used; False when it was."""
    done = await tx.execute(
        update(refresh_tokens)
        .where(refresh_tokens.c.token_hash == token_hash, refresh_tokens.c.used_ms.is_(None))
        .values(used_ms=now_ms)
    )
    return done.rowcount == 1


async def add_key(tx: Transaction, key: StoredKey, key_hash: str) -> None:
    """A new API key, by the SHA-256 of it in hex."""
    await tx.execute(
        insert(api_keys).values(
            id=key.id,
            account=key.account,
            role=key.role,
            name=key.name,
            prefix=key.prefix,
            key_hash=key_hash,
            created_ms=key.created_ms,
            expires_ms=key.expires_ms,
            scopes=" ".join(key.scopes) or None,
        )
    )


async def find_key(connection: AsyncConnection, key_hash: str) -> StoredKey | None:
    """The key with that hash."""
    row = (await connection.execute(select(api_keys).where(api_keys.c.key_hash == key_hash))).first()
    return None if row is None else _key(row)


async def get_key(connection: AsyncConnection, key_id: str) -> StoredKey | None:
    """The key with that id."""
    row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).first()
    return None if row is None else _key(row)


async def live_keys(connection: AsyncConnection, account: str | None, limit: int) -> list[StoredKey]:
    """Keys that were not ended, of one account or of all, newest first."""
    query = select(api_keys).where(api_keys.c.ended_ms.is_(None)).order_by(api_keys.c.id.desc()).limit(limit)
    if account is not None:
        query = query.where(api_keys.c.account == account)
    return [_key(row) for row in await connection.execute(query)]


async def end_key(tx: Transaction, key_id: str, now_ms: int) -> bool:
    """End a key; False when it had ended already."""
    done = await tx.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.ended_ms.is_(None)).values(ended_ms=now_ms)
    )
    return done.rowcount == 1


async def add_policy(tx: Transaction, policy: StoredPolicy) -> None:
    """A version of a policy; two writers of the same version: the second one fails."""
    await tx.execute(
        insert(policies).values(
            id=policy.id,
            version=policy.version,
            owner=policy.owner,
            name=policy.name,
            document=json.dumps(policy.document, separators=(",", ":")),
            created_ms=policy.created_ms,
        )
    )


async def get_policy(connection: AsyncConnection, policy_id: str) -> StoredPolicy | None:
    """The newest version."""
    row = (
        await connection.execute(
            select(policies).where(policies.c.id == policy_id).order_by(policies.c.version.desc()).limit(1)
        )
    ).first()
    return None if row is None else _policy(row)


async def find_policies(
    connection: AsyncConnection,
    *,
    owner: str | None = None,
    ids: Sequence[str] | None = None,
    before_id: str | None = None,
    limit: int = 100,
) -> list[StoredPolicy]:
    """The newest version of each policy, newest policy first."""
    newest = select(policies.c.id, func.max(policies.c.version).label("version")).group_by(policies.c.id).subquery()
    query = (
        select(policies)
        .join(newest, (policies.c.id == newest.c.id) & (policies.c.version == newest.c.version))
        .order_by(policies.c.id.desc())
        .limit(limit)
    )
    if owner is not None:
        query = query.where(policies.c.owner == owner)
    if ids is not None:
        query = query.where(policies.c.id.in_(ids))
    if before_id is not None:
        query = query.where(policies.c.id < before_id)
    return [_policy(row) for row in await connection.execute(query)]


async def sweep(tx: Transaction, now_ms: int, forget_before_ms: int) -> None:
    """Forget challenges that nobody used, and sessions and refresh tokens long over."""
    await tx.execute(delete(challenges).where(challenges.c.expires_ms < now_ms))
    over = select(sessions.c.id).where(
        (sessions.c.expires_ms < forget_before_ms) | (sessions.c.ended_ms < forget_before_ms)
    )
    await tx.execute(delete(refresh_tokens).where(refresh_tokens.c.session_id.in_(over)))
    await tx.execute(
        delete(sessions).where((sessions.c.expires_ms < forget_before_ms) | (sessions.c.ended_ms < forget_before_ms))
    )
