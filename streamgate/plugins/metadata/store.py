"""All SQL of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.contracts.metadata import MediaReport, NewAsset, Rendition, SourceMode, Track
from streamgate.domain.asset import AssetState, Failure, FailureCode, MediaWarning, Visibility
from streamgate.plugins.metadata.tables import assets
from streamgate.runtime.database import Transaction


class MediaFacts(msgspec.Struct, frozen=True):
    """What is stored of a film's media beside the columns."""

    source: SourceMode | None = None
    tracks: tuple[Track, ...] = ()
    renditions: tuple[Rendition, ...] = ()
    warnings: tuple[MediaWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Film:
    """A film as stored."""

    id: str
    owner: str
    title: str
    description: str
    visibility: Visibility
    policy_id: str | None
    state: AssetState
    playable: bool
    progress: float
    duration: float | None
    width: int | None
    height: int | None
    media: MediaFacts
    error: Failure | None
    poster_key: str | None
    created_ms: int
    deleted: bool
    cold_days: float | None


def _film(row: Row[Any]) -> Film:
    return Film(
        id=row.id,
        owner=row.owner,
        title=row.title,
        description=row.description,
        visibility=Visibility(row.visibility),
        policy_id=row.policy_id,
        state=AssetState(row.state),
        playable=bool(row.playable),
        progress=row.progress,
        duration=row.duration,
        width=row.width,
        height=row.height,
        media=msgspec.msgpack.decode(row.media, type=MediaFacts) if row.media else MediaFacts(),
        error=Failure(FailureCode(row.error_code), row.error_detail) if row.error_code else None,
        poster_key=row.poster_key,
        created_ms=row.created_ms,
        deleted=row.deleted_ms is not None,
        cold_days=row.cold_days,
    )


async def add(tx: Transaction, asset_id: str, owner: str, new: NewAsset, now_ms: int) -> None:
    """A new film, in state ``uploading``."""
    await tx.execute(
        insert(assets).values(
            id=asset_id,
            owner=owner,
            title=new.title,
            description=new.description,
            visibility=new.visibility.value,
            policy_id=new.policy_id,
            state=AssetState.UPLOADING.value,
            playable=False,
            progress=0.0,
            revision=0,
            created_ms=now_ms,
            updated_ms=now_ms,
        )
    )


async def get(connection: AsyncConnection, asset_id: str) -> Film | None:
    """One film, also a deleted one; None when there never was one."""
    row = (await connection.execute(select(assets).where(assets.c.id == asset_id))).first()
    return None if row is None else _film(row)


async def find(
    connection: AsyncConnection,
    *,
    limit: int,
    before_id: str | None,
    owner: str | None,
    listed: bool,
    everything: bool,
    search: str | None,
) -> list[Film]:
    """Newest first: those of ``owner``, and with ``listed`` those that everybody may list; ``everything`` asks for all."""
    query = select(assets).where(assets.c.deleted_ms.is_(None)).order_by(assets.c.id.desc()).limit(limit)
    if not everything:
        visible: list[ColumnElement[bool]] = [] if owner is None else [assets.c.owner == owner]
        if listed:
            visible.append(assets.c.visibility.in_((Visibility.PUBLIC.value, Visibility.GATED.value)))
        if not visible:
            return []
        query = query.where(or_(*visible))
    if before_id is not None:
        query = query.where(assets.c.id < before_id)
    if search:
        words = search.lower()
        query = query.where(
            or_(
                func.lower(assets.c.title).contains(words, autoescape=True),
                func.lower(assets.c.description).contains(words, autoescape=True),
            )
        )
    return [_film(row) for row in await connection.execute(query)]


async def counts(connection: AsyncConnection) -> dict[AssetState, int]:
    """Films that are not deleted, by state."""
    rows = await connection.execute(
        select(assets.c.state, func.count()).where(assets.c.deleted_ms.is_(None)).group_by(assets.c.state)
    )
    return {AssetState(state): count for state, count in rows}


async def cold_days(connection: AsyncConnection, after: str, limit: int) -> list[tuple[str, float]]:
    """(id, days) of films that have a setting of their own, by id."""
    rows = await connection.execute(
        select(assets.c.id, assets.c.cold_days)
        .where(assets.c.cold_days.is_not(None), assets.c.deleted_ms.is_(None), assets.c.id > after)
        .order_by(assets.c.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


async def change(tx: Transaction, asset_id: str, now_ms: int, values: dict[str, Any]) -> None:
    """Set columns of a film that is not deleted."""
    await tx.execute(
        update(assets).where(assets.c.id == asset_id, assets.c.deleted_ms.is_(None)).values(updated_ms=now_ms, **values)
    )


async def empty(tx: Transaction, asset_id: str, now_ms: int, *, only_uploading: bool = False) -> bool:
    """Delete a film, keeping its id and owner; False when it was deleted already (or is not ``uploading``, when asked)."""
    which = [assets.c.id == asset_id, assets.c.deleted_ms.is_(None)]
    if only_uploading:
        which.append(assets.c.state == AssetState.UPLOADING.value)
    done = await tx.execute(
        update(assets)
        .where(*which)
        .values(
            title="",
            description="",
            visibility=Visibility.PRIVATE.value,
            policy_id=None,
            playable=False,
            media=None,
            error_code=None,
            error_detail=None,
            poster_key=None,
            cold_days=None,
            updated_ms=now_ms,
            deleted_ms=now_ms,
        )
    )
    return done.rowcount == 1


async def report(tx: Transaction, found: MediaReport, now_ms: int) -> bool:
    """Take over a report; False when the film is gone or a newer one is stored."""
    facts = MediaFacts(found.source, found.tracks, found.renditions, found.warnings)
    done = await tx.execute(
        update(assets)
        .where(assets.c.id == found.asset_id, assets.c.deleted_ms.is_(None), assets.c.revision < found.revision)
        .values(
            state=found.state.value,
            playable=found.playable,
            progress=found.progress,
            duration=found.duration,
            width=found.width,
            height=found.height,
            media=msgspec.msgpack.encode(facts),
            error_code=found.error.code.value if found.error else None,
            error_detail=found.error.detail if found.error else None,
            poster_key=found.poster_key,
            revision=found.revision,
            updated_ms=now_ms,
        )
    )
    return done.rowcount == 1
