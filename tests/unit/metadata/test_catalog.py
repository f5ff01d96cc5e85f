"""The catalog: pages, search, who sees what, what a change announces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.adapters.chain_none import NoChains
from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.contracts.auth import Access, PolicyDraft
from streamgate.contracts.metadata import (
    AssetChanges,
    AssetQuery,
    Catalog,
    MediaReport,
    NewAsset,
    Rendition,
    SourceMode,
)
from streamgate.domain.asset import AssetState, Failure, FailureCode, MediaWarning, Visibility
from streamgate.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated, ValidationFailed
from streamgate.domain.identity import ANONYMOUS, Caller, Prefix, Role, new_id
from streamgate.kernel import LoopbackBinding
from streamgate.plugins.metadata import service
from streamgate.plugins.metadata.service import CatalogService
from streamgate.plugins.metadata.settings import MetadataSettings
from streamgate.runtime.database import Database
from streamgate.runtime.jobs import Jobs
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.tables import jobs, outbox
from tests.support.access import access, site
from tests.support.clock import FakeClock

OWNER = Caller(account="eip155:1:0x" + "aa" * 20, role=Role.CREATOR)
OTHER = Caller(account="eip155:1:0x" + "bb" * 20, role=Role.CREATOR)
ADMIN = Caller(account="admin", role=Role.ADMIN)
OPEN = {"v": 1, "expr": {"time_window": {"from": "2020-01-01T00:00:00Z", "until": None}}}


@pytest.fixture
def auth(database: Database, clock: FakeClock, tmp_path: Path) -> Access:
    return access(database, clock, NoChains(), tmp_path)


@pytest.fixture
def catalog(database: Database, clock: FakeClock, tmp_path: Path, auth: Access) -> Catalog:
    bus = MemoryBus()
    made = CatalogService(
        settings=MetadataSettings(),
        database=database,
        outbox=Outbox(database, bus, clock),
        jobs=Jobs(database, bus, clock),
        access=auth,
        blobs=LocalBlobStore(tmp_path / "objects"),
        site=site(tmp_path),
        clock=clock,
    )
    bound: Catalog = LoopbackBinding()(Catalog, made)  # type: ignore[assignment]
    return bound


async def announced(database: Database) -> list[str]:
    async with database.read() as connection:
        return [row[0] for row in await connection.execute(select(outbox.c.subject).order_by(outbox.c.position))]


async def make(catalog: Catalog, title: str = "Film", caller: Caller = OWNER, **more: Any) -> str:
    return (await catalog.create(caller, NewAsset(title=title, **more))).id


async def test_pages_lead_through_everything_newest_first(catalog: Catalog) -> None:
    ids = [await make(catalog, f"Film {number}", visibility=Visibility.PUBLIC) for number in range(7)]
    found: list[str] = []
    cursor = None
    while True:
        page = await catalog.list(ANONYMOUS, AssetQuery(limit=3, cursor=cursor))
        found += [asset.id for asset in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(found) == sorted(ids)
    assert found == sorted(found, reverse=True)
    for wrong in (AssetQuery(limit=0), AssetQuery(limit=101), AssetQuery(cursor="x")):
        with pytest.raises(ValidationFailed):
            await catalog.list(ANONYMOUS, wrong)


async def test_everybody_sees_what_is_listed_to_them(catalog: Catalog) -> None:
    private = await make(catalog, "private")
    gated = await make(catalog, "gated", visibility=Visibility.GATED)
    public = await make(catalog, "public", visibility=Visibility.PUBLIC)
    theirs = await make(catalog, "theirs", OTHER)

    async def seen(caller: Caller, **query: Any) -> set[str]:
        return {asset.id for asset in (await catalog.list(caller, AssetQuery(**query))).items}

    assert await seen(ANONYMOUS) == {gated, public}
    assert await seen(OWNER) == {private, gated, public}
    assert await seen(OTHER) == {gated, public, theirs}
    assert await seen(ADMIN) == {private, gated, public, theirs}
    assert await seen(OWNER, mine=True) == {private, gated, public}
    assert await seen(ANONYMOUS, mine=True) == set()


async def test_search_takes_words_as_they_are(catalog: Catalog) -> None:
    await make(catalog, "100% Tea_time", visibility=Visibility.PUBLIC)
    await make(catalog, "Other", visibility=Visibility.PUBLIC, description="about TEA")

    async def found(words: str) -> int:
        return len((await catalog.list(ANONYMOUS, AssetQuery(search=words))).items)

    assert [await found(words) for words in ("tea", "TEA_", "0%", "%", "_", "nothing", "a' OR 1=1 --")] == [
        2,
        1,
        1,
        1,
        1,
        0,
        0,
    ]


async def test_who_may_not_know_of_a_film_learns_nothing(catalog: Catalog) -> None:
    private = await make(catalog)
    public = await make(catalog, visibility=Visibility.PUBLIC)
    for caller in (ANONYMOUS, OTHER):
        for call in (
            catalog.get(caller, private),
            catalog.update(caller, private, AssetChanges(title="x")),
            catalog.delete(caller, private),
            catalog.require_owner(caller, private),
        ):
            with pytest.raises(NotFound):
                await call
    with pytest.raises(Forbidden):
        await catalog.update(OTHER, public, AssetChanges(title="x"))
    with pytest.raises(Unauthenticated):
        await catalog.delete(ANONYMOUS, public)
    with pytest.raises(Forbidden):
        await catalog.create(Caller(account="eip155:1:0x" + "cc" * 20, role=Role.VIEWER), NewAsset(title="x"))
    await catalog.require_owner(ADMIN, private)


async def test_only_what_changes_the_gate_is_announced(catalog: Catalog, auth: Access, database: Database) -> None:
    asset = await make(catalog)
    policy = await auth.create_policy(OWNER, PolicyDraft(name="Open", document=OPEN))
    await catalog.update(OWNER, asset, AssetChanges(title="Another", description="Words"))
    await catalog.update(OWNER, asset, AssetChanges(visibility=Visibility.PRIVATE))
    assert await announced(database) == []
    changed = await catalog.update(OWNER, asset, AssetChanges(visibility=Visibility.GATED, policy_id=policy.id))
    assert changed.policy is not None
    assert (changed.policy.id, changed.policy.name, changed.policy.version) == (policy.id, "Open", 1)
    detached = await catalog.update(OWNER, asset, AssetChanges(policy_id=None))
    assert detached.policy_id is None
    await catalog.delete(OWNER, asset)
    await catalog.delete(OWNER, asset)
    assert await announced(database) == ["metadata.asset_changed", "metadata.asset_changed", "metadata.asset_deleted"]


async def test_a_policy_of_another_cannot_be_attached(catalog: Catalog, auth: Access) -> None:
    foreign = await auth.create_policy(OTHER, PolicyDraft(name="Open", document=OPEN))
    asset = await make(catalog)
    for policy_id in (foreign.id, new_id(Prefix.POLICY), "nonsense"):
        with pytest.raises(NotFound):
            await catalog.update(OWNER, asset, AssetChanges(policy_id=policy_id))
        with pytest.raises(NotFound):
            await make(catalog, policy_id=policy_id)


@pytest.mark.parametrize(
    "changes",
    [AssetChanges(title=""), AssetChanges(title="   "), AssetChanges(title="x" * 201), AssetChanges(description="x" * 10_001),
     AssetChanges(title="a\x00b"), AssetChanges(description="bell\x07")],
)  # fmt: skip
async def test_words_that_cannot_be(catalog: Catalog, changes: AssetChanges) -> None:
    asset = await make(catalog)
    with pytest.raises(ValidationFailed) as refused:
        await catalog.update(OWNER, asset, changes)
    assert refused.value.errors[0].pointer in {"/title", "/description"}


async def test_a_report_is_taken_over_whole(catalog: Catalog, database: Database) -> None:
    asset = await make(catalog)
    told = MediaReport(
        asset_id=asset,
        revision=2,
        state=AssetState.FAILED,
        playable=False,
        progress=0.25,
        duration=9.5,
        width=640,
        height=360,
        source=SourceMode("encode", "because"),
        renditions=(Rendition(name="360p", kind="video", codecs="avc1", bandwidth=5),),
        warnings=(MediaWarning("damaged", "A part."),),
        error=Failure(FailureCode.TIMEOUT, "Too slow."),
        poster_key="assets/x/poster.jpg",
    )
    assert await catalog.report(told)
    found = await catalog.get(OWNER, asset)
    assert (found.state, found.duration, found.width, found.error) == ("failed", 9.5, 640, told.error)
    assert (found.renditions, found.warnings, found.source) == (told.renditions, told.warnings, told.source)
    assert found.poster_url == f"https://films.example/api/v1/assets/{asset}/poster.jpg"
    assert (await catalog.access(asset)).poster_key == "assets/x/poster.jpg"


async def test_a_poster_time_becomes_a_job_and_lies_within_the_film(catalog: Catalog, database: Database) -> None:
    asset = await make(catalog)
    with pytest.raises(Conflict):
        await catalog.update(OWNER, asset, AssetChanges(poster_time=1.0))
    ready = MediaReport(asset_id=asset, revision=1, state=AssetState.READY, playable=True, progress=1, duration=10)
    assert await catalog.report(ready)
    for wrong in (-1.0, 10.1):
        with pytest.raises(ValidationFailed):
            await catalog.update(OWNER, asset, AssetChanges(poster_time=wrong))
    await catalog.update(OWNER, asset, AssetChanges(poster_time=5.0))
    async with database.read() as connection:
        assert [row.kind for row in await connection.execute(select(jobs.c.kind))] == ["transcoder.poster"]


async def test_days_until_a_ladder_is_dropped_are_a_films_own_or_the_servers(catalog: Catalog) -> None:
    mine, never, gone = [await make(catalog) for _ in range(3)]
    assert (await catalog.get(OWNER, mine)).cold_days is None
    for asset, days in ((mine, 30.5), (never, 0.0), (gone, 7.0)):
        assert (await catalog.update(OWNER, asset, AssetChanges(cold_days=days))).cold_days == days
    await catalog.delete(OWNER, gone)
    page = await catalog.cold_days(None)
    assert {one.asset_id: one.days for one in page.items} == {mine: 30.5, never: 0.0}
    assert page.next_cursor is None
    assert (await catalog.update(OWNER, mine, AssetChanges(title="Film"))).cold_days == 30.5
    assert (await catalog.update(OWNER, mine, AssetChanges(cold_days=None))).cold_days is None
    assert [one.asset_id for one in (await catalog.cold_days(None)).items] == [never]


@pytest.mark.parametrize("days", [-1.0, 36_501.0, float("nan"), float("inf")])
async def test_days_that_cannot_be(catalog: Catalog, days: float) -> None:
    asset = await make(catalog)
    with pytest.raises(ValidationFailed) as caught:
        await catalog.update(OWNER, asset, AssetChanges(cold_days=days))
    assert [error.pointer for error in caught.value.errors] == ["/cold_days"]


async def test_films_with_days_of_their_own_come_by_pages(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "COLD_PAGE", 2)
    made = [await make(catalog) for _ in range(5)]
    for asset in made:
        await catalog.update(OWNER, asset, AssetChanges(cold_days=1))
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await catalog.cold_days(cursor)
        found += [one.asset_id for one in page.items]
        cursor, pages = page.next_cursor, pages + 1
    assert (found, pages) == (sorted(made), 3)


async def test_an_upload_that_came_to_nothing_leaves_no_film(catalog: Catalog) -> None:
    asset = await make(catalog)
    playing = await make(catalog)
    ready = MediaReport(asset_id=playing, revision=1, state=AssetState.READY, playable=True, progress=1, duration=10)
    assert await catalog.report(ready)
    for asset_id in (asset, asset, playing, new_id(Prefix.ASSET)):
        await catalog.discard(asset_id)
    with pytest.raises(NotFound):
        await catalog.get(OWNER, asset)
    assert (await catalog.get(OWNER, playing)).playable
