"""All SQL of the transcoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from streamgate.contracts.upload import SourcePart
from streamgate.domain.asset import Failure, FailureCode
from streamgate.media.model import MediaPlan
from streamgate.plugins.transcoder.tables import chunks, films
from streamgate.runtime.database import Transaction

_PLAN = msgspec.msgpack.Decoder(MediaPlan)


class Ahead(msgspec.Struct, frozen=True, array_like=True):
    """What an upload's sender says the file ends with: so many bytes, of this SHA-256."""

    length: int
    digest: bytes


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What plays of a film that is still being uploaded: ``count`` segments of each rendition of ``plan``, which is `Grown`'s.

    ``plan_id`` names it as a plan's does. ``parts``: what was there of the ``size`` bytes; ``indexes``: storage keys of its sample
    indexes, the one that counts first, then those that readers may still have. ``looked_at``, ``lies`` and ``mark``: see `Grown`.

    ``state_key``: where a film is written out as it arrives, the storage key of what the next look goes on from. The parts are then
    those that it was written out to, and ``size`` is that of all of them. ``ahead``: the end of the file that was sent ahead, and
    that the indexes were read from.
    """

    plan_id: str
    plan: MediaPlan
    size: int
    indexes: tuple[str, ...]
    count: int = 0
    parts: tuple[SourcePart, ...] = ()
    looked_at: int = 0
    lies: tuple[int, ...] = ()
    mark: bytes = b""
    state_key: str | None = None
    ahead: Ahead | None = None


@dataclass(frozen=True, slots=True)
class Film:
    """What the transcoder knows of a film. ``plan`` is None until it is planned; ``growth``: what plays until then.

    ``growing``: whether its upload goes on; None when nothing is known of that.
    """

    asset_id: str
    owner: str | None
    plan_id: str | None
    plan: MediaPlan | None
    canceled: bool
    error: Failure | None
    poster_key: str | None
    poster_wish: int
    settled: bool
    revision: int
    reported: int
    watched_ms: int = 0
    cold: bool = False
    growth: Growth | None = None
    growing: bool | None = None

    @property
    def plans(self) -> tuple[str, ...]:
        """Names of the plans by which the film plays."""
        named = (self.plan_id, self.growth.plan_id if self.growth is not None else None)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk of a rendition: encoded (``prefix``, ``lengths`` in bytes per segment), or impossible (``error_code``)."""

    rendition: str
    chunk: int
    prefix: str | None
    lengths: tuple[int, ...]
    error_code: str | None


_GROWTH = msgspec.msgpack.Decoder(Growth)


def _film(row: Row[Any]) -> Film:
    return Film(
        asset_id=row.asset_id,
        owner=row.owner,
        plan_id=row.plan_id,
        plan=_PLAN.decode(row.plan) if row.plan else None,
        canceled=bool(row.canceled),
        error=Failure(FailureCode(row.error_code), row.error_detail) if row.error_code else None,
        poster_key=row.poster_key,
        poster_wish=row.poster_wish,
        settled=bool(row.settled),
        revision=row.revision,
        reported=row.reported,
        watched_ms=row.watched_ms,
        cold=bool(row.cold),
        growth=_GROWTH.decode(row.growth) if row.growth else None,
        growing=None if row.growing is None else bool(row.growing),
    )


def _chunk(row: Row[Any]) -> ChunkRow:
    lengths = msgspec.msgpack.decode(row.lengths, type=tuple[int, ...]) if row.lengths else ()
    return ChunkRow(row.rendition, row.chunk, row.prefix, lengths, row.error_code)


def _upsert(tx: Transaction, table: Any) -> Any:
    return (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)


async def open_film(tx: Transaction, asset_id: str, owner: str | None, now_ms: int) -> None:
    """Make the film's row when there is none."""
    await tx.execute(
        _upsert(tx, films)
        .values(asset_id=asset_id, owner=owner, revision=1, created_ms=now_ms, updated_ms=now_ms, watched_ms=now_ms)
        .on_conflict_do_nothing()
    )


async def get(connection: AsyncConnection, asset_id: str) -> Film | None:
    """One film; None when there is none."""
    row = (await connection.execute(select(films).where(films.c.asset_id == asset_id))).first()
    return None if row is None else _film(row)


async def change(tx: Transaction, asset_id: str, now_ms: int, **values: Any) -> bool:
    """Set columns and raise the revision; False when the film is gone."""
    done = await tx.execute(
        update(films)
        .where(films.c.asset_id == asset_id)
        .values(revision=films.c.revision + 1, updated_ms=now_ms, **values)
    )
    return done.rowcount == 1


async def grow(tx: Transaction, asset_id: str, growth: Growth, now_ms: int) -> bool:
    """More of a film has arrived; False when its upload has ended, or the film is gone."""
    done = await tx.execute(
        update(films)
        .where(films.c.asset_id == asset_id, films.c.growing.is_not(False), films.c.plan.is_(None))
        .values(
            growth=msgspec.msgpack.encode(growth),
            growing=True,
            settled=False,
            revision=films.c.revision + 1,
            updated_ms=now_ms,
        )
    )
    return done.rowcount == 1


async def reported(tx: Transaction, asset_id: str, revision: int, settled: bool) -> None:
    """The catalog has taken this revision; the film is settled when nothing changed meanwhile."""
    await tx.execute(
        update(films).where(films.c.asset_id == asset_id, films.c.reported < revision).values(reported=revision)
    )
    await tx.execute(
        update(films).where(films.c.asset_id == asset_id, films.c.revision == revision).values(settled=settled)
    )


async def unsettled(connection: AsyncConnection, before_ms: int, limit: int) -> list[str]:
    """Films that are not at their end and that nothing happened to since ``before_ms``."""
    rows = await connection.execute(
        select(films.c.asset_id)
        .where(films.c.settled.is_(False), films.c.updated_ms < before_ms)
        .order_by(films.c.updated_ms)
        .limit(limit)
    )
    return [row[0] for row in rows]


async def watched(tx: Transaction, asset_id: str, now_ms: int) -> None:
    """The film is being watched."""
    await tx.execute(update(films).where(films.c.asset_id == asset_id).values(watched_ms=now_ms))


async def unwatched(
    connection: AsyncConnection, before_ms: int, after: tuple[int, str], limit: int
) -> list[tuple[int, str]]:
    """(watched, id) of films at their good end that nobody watched since ``before_ms``, and whose ladders are still there.

    In that order, from behind ``after``.
    """
    rows = await connection.execute(
        select(films.c.watched_ms, films.c.asset_id)
        .where(_warm(), films.c.watched_ms < before_ms)
        .where(tuple_(films.c.watched_ms, films.c.asset_id) > tuple_(*after))
        .order_by(films.c.watched_ms, films.c.asset_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


async def when_watched(connection: AsyncConnection, asset_ids: Iterable[str]) -> list[tuple[int, str]]:
    """(watched, id) of those of the films that are at their good end and whose ladders are still there."""
    query = select(films.c.watched_ms, films.c.asset_id).where(_warm(), films.c.asset_id.in_(tuple(asset_ids)))
    return [(row[0], row[1]) for row in await connection.execute(query)]


def _warm() -> ColumnElement[bool]:
    """A film at its good end whose ladder is still there."""
    whole = films.c.plan.is_not(None) & films.c.canceled.is_(False) & films.c.error_code.is_(None)
    return films.c.cold.is_(False) & films.c.settled.is_(True) & whole


async def cool(tx: Transaction, asset_id: str, before_ms: int, now_ms: int) -> bool:
    """Mark a film's ladder as dropped; False when the film was watched meanwhile, or is cold or gone."""
    done = await tx.execute(
        update(films)
        .where(films.c.asset_id == asset_id, films.c.watched_ms < before_ms)
        .where(films.c.cold.is_(False), films.c.settled.is_(True))
        .values(cold=True, settled=False, revision=films.c.revision + 1, updated_ms=now_ms)
    )
    return done.rowcount == 1


async def warm(tx: Transaction, asset_id: str, now_ms: int) -> bool:
    """A cold film is watched again; False when somebody was first."""
    done = await tx.execute(
        update(films)
        .where(films.c.asset_id == asset_id, films.c.cold.is_(True))
        .values(cold=False, settled=False, watched_ms=now_ms, revision=films.c.revision + 1, updated_ms=now_ms)
    )
    return done.rowcount == 1


async def drop_chunks(tx: Transaction, plan_id: str, renditions: Iterable[str], opening: str | None) -> list[str]:
    """Forget the encoded chunks of some renditions, but not the first one of ``opening``; the prefixes of their objects."""
    which = [chunks.c.plan_id == plan_id, chunks.c.rendition.in_(tuple(renditions)), chunks.c.prefix.is_not(None)]
    if opening is not None:
        which.append((chunks.c.rendition != opening) | (chunks.c.chunk > 0))
    return [row[0] for row in await tx.execute(delete(chunks).where(*which).returning(chunks.c.prefix))]


async def wanted(tx: Transaction, asset_id: str, plan_id: str) -> bool:
    """Whether everything of that plan is to be made: it is the film's, which has neither failed nor been stopped nor gone cold."""
    row = await tx.execute(
        select(films.c.asset_id)
        .where(films.c.asset_id == asset_id, films.c.plan_id == plan_id, films.c.error_code.is_(None))
        .where(films.c.canceled.is_(False), films.c.cold.is_(False))
    )
    return row.first() is not None


async def touch(tx: Transaction, asset_id: str, now_ms: int) -> None:
    """The film was looked after."""
    await tx.execute(update(films).where(films.c.asset_id == asset_id).values(updated_ms=now_ms))


async def get_chunk(connection: AsyncConnection, plan_id: str, rendition: str, chunk: int) -> ChunkRow | None:
    """One chunk of one rendition; None when it is still to be made."""
    row = (
        await connection.execute(
            select(chunks).where(chunks.c.plan_id == plan_id, chunks.c.rendition == rendition, chunks.c.chunk == chunk)
        )
    ).first()
    return None if row is None else _chunk(row)


async def chunk_marks(
    connection: AsyncConnection, plan_id: str, some: range | None = None
) -> list[tuple[str, int, bool]]:
    """(rendition, chunk, whether it is encoded) of everything that has a row, of consecutive chunks or of all."""
    query = select(chunks.c.rendition, chunks.c.chunk, chunks.c.error_code.is_(None)).where(chunks.c.plan_id == plan_id)
    if some is not None:
        query = query.where(chunks.c.chunk >= some.start, chunks.c.chunk < some.stop)
    return [(row[0], row[1], bool(row[2])) for row in await connection.execute(query)]


async def counts(connection: AsyncConnection, plan_id: str) -> dict[str, tuple[int, int]]:
    """By rendition: chunks encoded, chunks that cannot be."""
    rows = await connection.execute(
        select(chunks.c.rendition, func.count(chunks.c.prefix), func.count(chunks.c.error_code))
        .where(chunks.c.plan_id == plan_id)
        .group_by(chunks.c.rendition)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}


async def add_chunk(
    tx: Transaction,
    *,
    asset_id: str,
    plan_id: str,
    rendition: str,
    chunk: int,
    now_ms: int,
    prefix: str | None = None,
    lengths: Iterable[int] = (),
    error_code: str | None = None,
) -> bool:
    """Write a chunk's outcome; False when another attempt was first (its outcome stays)."""
    done = await tx.execute(
        _upsert(tx, chunks)
        .values(
            asset_id=asset_id,
            plan_id=plan_id,
            rendition=rendition,
            chunk=chunk,
            prefix=prefix,
            lengths=msgspec.msgpack.encode(tuple(lengths)) if prefix else None,
            error_code=error_code,
            done_ms=now_ms,
        )
        .on_conflict_do_nothing()
    )
    return bool(done.rowcount == 1)


async def drop_chunk(tx: Transaction, plan_id: str, rendition: str, chunk: int, prefix: str) -> bool:
    """Forget an encoded chunk whose objects are gone; False when it was made again already."""
    done = await tx.execute(
        delete(chunks).where(
            chunks.c.plan_id == plan_id,
            chunks.c.rendition == rendition,
            chunks.c.chunk == chunk,
            chunks.c.prefix == prefix,
        )
    )
    return done.rowcount == 1


async def drop_failed(tx: Transaction, asset_id: str) -> None:
    """Forget what could not be encoded, so that it is tried again."""
    await tx.execute(delete(chunks).where(chunks.c.asset_id == asset_id, chunks.c.error_code.is_not(None)))


async def drop_film(tx: Transaction, asset_id: str) -> None:
    """Forget a film."""
    await tx.execute(delete(chunks).where(chunks.c.asset_id == asset_id))
    await tx.execute(delete(films).where(films.c.asset_id == asset_id))


async def insert_plan(tx: Transaction, asset_id: str, plan_id: str, plan: MediaPlan, now_ms: int) -> bool:
    """Store a film's plan in place of any older one; False when the film is gone."""
    await tx.execute(delete(chunks).where(chunks.c.asset_id == asset_id))
    return await change(
        tx,
        asset_id,
        now_ms,
        plan_id=plan_id,
        plan=msgspec.msgpack.encode(plan),
        error_code=None,
        error_detail=None,
        settled=False,
        cold=False,
        growth=None,
        growing=False,
    )
