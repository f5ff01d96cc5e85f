"""All SQL of playback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.domain.identity import Role
from streamgate.plugins.streaming.tables import seats, sessions
from streamgate.runtime.database import Transaction


@dataclass(frozen=True, slots=True)
class Session:
    """A playback session as stored. ``auth_session_id`` or ``auth_key_id``: the credential it was minted under.

    ``token_ids``: the tokens that the viewer named (decimal), to watch with these and no others.
    """

    id: str
    asset_id: str
    account: str | None
    role: Role
    auth_session_id: str | None
    auth_key_id: str | None
    created_ms: int
    last_seen_ms: int
    expires_ms: int
    ended_ms: int | None = None
    token_ids: tuple[str, ...] = ()


def _session(row: Row[Any]) -> Session:
    values = dict(row._mapping)
    values["role"] = Role(values["role"])
    values["token_ids"] = tuple(json.loads(values["token_ids"]))
    return Session(**values)


async def add(tx: Transaction, session: Session) -> None:
    """A new session."""
    await tx.execute(
        insert(sessions).values(
            id=session.id,
            asset_id=session.asset_id,
            account=session.account,
            role=int(session.role),
            auth_session_id=session.auth_session_id,
            auth_key_id=session.auth_key_id,
            created_ms=session.created_ms,
            last_seen_ms=session.last_seen_ms,
            expires_ms=session.expires_ms,
            token_ids=json.dumps(session.token_ids),
        )
    )


async def get(connection: AsyncConnection, session_id: str) -> Session | None:
    """One session, ended or not."""
    row = (await connection.execute(select(sessions).where(sessions.c.id == session_id))).first()
    return None if row is None else _session(row)


async def live(connection: AsyncConnection, account: str, now_ms: int, limit: int) -> list[Session]:
    """The sessions of an account that can still play, newest first."""
    rows = await connection.execute(
        select(sessions)
        .where(sessions.c.account == account, sessions.c.ended_ms.is_(None), sessions.c.expires_ms > now_ms)
        .order_by(sessions.c.id.desc())
        .limit(limit)
    )
    return [_session(row) for row in rows]


async def seated(connection: AsyncConnection, token: str, now_ms: int) -> list[Session]:
    """The sessions that watch with a token and can still play."""
    rows = await connection.execute(
        select(sessions)
        .join(seats, seats.c.session_id == sessions.c.id)
        .where(seats.c.token == token, sessions.c.ended_ms.is_(None), sessions.c.expires_ms > now_ms)
    )
    return [_session(row) for row in rows]


async def one_at_a_time(tx: Transaction, names: Iterable[str]) -> None:
    """Let transactions that decide about the same names wait for each other. SQLite has one writer at a time anyway."""
    if tx.dialect.name == "postgresql":
        for name in sorted(set(names)):
            await tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


async def sit(tx: Transaction, session_id: str, tokens: Iterable[str], now_ms: int) -> None:
    """The session watches with exactly these tokens; it is seen now."""
    await tx.execute(delete(seats).where(seats.c.session_id == session_id))
    rows = [{"token": token, "session_id": session_id, "taken_ms": now_ms} for token in dict.fromkeys(tokens)]
    if rows:
        await tx.execute(insert(seats), rows)
    await tx.execute(update(sessions).where(sessions.c.id == session_id).values(last_seen_ms=now_ms))


async def end(tx: Transaction, now_ms: int, **which: str | None) -> list[str]:
    """End the sessions whose columns equal ``which`` (at least one value); ids of those that had not ended yet."""
    wanted: list[ColumnElement[bool]] = [
        sessions.c[name] == value for name, value in which.items() if value is not None
    ]
    if not wanted:
        return []
    rows = await tx.execute(
        update(sessions).where(sessions.c.ended_ms.is_(None), *wanted).values(ended_ms=now_ms).returning(sessions.c.id)
    )
    return [row[0] for row in rows]


async def seen(tx: Transaction, moments: Mapping[str, int]) -> None:
    """Write when sessions were last seen (ms since the epoch), by id."""
    if moments:
        statement = (
            update(sessions).where(sessions.c.id == bindparam("session")).values(last_seen_ms=bindparam("seen_ms"))
        )
        await tx.execute(statement, [{"session": key, "seen_ms": value} for key, value in moments.items()])


async def delete_expired(tx: Transaction, before_ms: int) -> int:
    """Forget sessions whose hard end lies before ``before_ms``."""
    over = select(sessions.c.id).where(sessions.c.expires_ms < before_ms)
    await tx.execute(delete(seats).where(seats.c.session_id.in_(over)))
    done = await tx.execute(delete(sessions).where(sessions.c.expires_ms < before_ms))
    return int(done.rowcount)
