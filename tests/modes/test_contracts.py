"""Every contract, asked of the whole product, gives the same answers however it is bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from streamgate.app import Running
from streamgate.contracts.auth import (
    Access,
    ChallengeRequest,
    DecisionRequest,
    KeyRequest,
    PolicyDraft,
    RefreshRequest,
    SignIn,
)
from streamgate.contracts.cache import CachePolicy, PurgeRequest
from streamgate.contracts.metadata import AssetChanges, AssetQuery, Catalog, MediaReport, NewAsset
from streamgate.contracts.monitor import Status
from streamgate.contracts.streaming import Playback, PlaybackRequest
from streamgate.contracts.transcoder import Transcoding
from streamgate.contracts.upload import Uploads
from streamgate.contracts.worker import JobQuery, Work
from streamgate.domain.asset import AssetState, Visibility
from streamgate.domain.errors import (
    Conflict,
    Forbidden,
    NotEntitled,
    NotFound,
    Unauthenticated,
    ValidationFailed,
)
from streamgate.domain.identity import ANONYMOUS, Caller, Prefix, Role, new_id
from streamgate.kernel import Binding, DirectBinding, LoopbackBinding, discover
from streamgate.settings import load
from tests.support.grpc_binding import grpc_binding

BUILT_IN = {"api-gateway", "upload", "transcoder", "streaming", "metadata", "cache", "auth", "worker", "monitor"}
OWNER = Caller(account="eip155:1:0x00000000000000000000000000000000000000aa", role=Role.CREATOR)
OTHER = Caller(account="eip155:1:0x00000000000000000000000000000000000000bb", role=Role.CREATOR)
ADMIN = Caller(account="admin", role=Role.ADMIN)
OPEN = {"v": 1, "expr": {"time_window": {"from": "2020-01-01T00:00:00Z", "until": None}}}


@pytest.fixture(params=["direct", "loopback", "grpc"])
async def binding(request: pytest.FixtureRequest) -> AsyncIterator[Binding]:
    if request.param == "grpc":
        async with grpc_binding() as over:
            yield over
    else:
        yield DirectBinding() if request.param == "direct" else LoopbackBinding()


@pytest.fixture
async def product(binding: Binding, tmp_path: Path) -> AsyncIterator[Any]:
    """Gives the provider of a contract: ``product(Catalog)``."""
    plugins = discover(BUILT_IN)
    settings = load(
        plugins, service="monolith", environ={"STREAMGATE_AUTH__CREATORS": '["*"]'}, flags={"data_dir": tmp_path}
    )
    async with Running(settings, "monolith").started(plugins, binding) as running:
        yield lambda kind: running.assembled.bound[kind]


async def playable(product: Any, visibility: Visibility, policy_id: str | None = None) -> str:
    """A film that the transcoder has reported playable."""
    asset = await product(Catalog).create(OWNER, NewAsset(title="Film", visibility=visibility, policy_id=policy_id))
    report = MediaReport(
        asset_id=asset.id, revision=1, state=AssetState.READY, playable=True, progress=1.0, duration=10.0
    )
    assert await product(Catalog).report(report)
    return str(asset.id)


async def test_catalog(product: Any) -> None:
    catalog = product(Catalog)
    asset = await catalog.create(OWNER, NewAsset(title="Film"))
    assert (asset.state, asset.visibility, asset.owner, asset.playable) == (
        "uploading",
        "private",
        OWNER.account,
        False,
    )
    assert (await catalog.get(OWNER, asset.id)).title == "Film"
    for stranger in (OTHER, ANONYMOUS):
        with pytest.raises(NotFound):
            await catalog.get(stranger, asset.id)
        with pytest.raises(NotFound):
            await catalog.update(stranger, asset.id, AssetChanges(title="Mine"))
    changed = await catalog.update(OWNER, asset.id, AssetChanges(visibility=Visibility.PUBLIC, description="Words"))
    assert (changed.title, changed.description, changed.visibility) == ("Film", "Words", "public")
    assert [a.id for a in (await catalog.list(OWNER, AssetQuery(mine=True))).items] == [asset.id]
    with pytest.raises(ValidationFailed):
        await catalog.create(OWNER, NewAsset(title=""))
    await catalog.delete(OWNER, asset.id)
    await catalog.delete(OWNER, asset.id)
    with pytest.raises(NotFound):
        await catalog.get(ADMIN, asset.id)


async def test_reports_of_older_revisions_are_refused(product: Any) -> None:
    catalog = product(Catalog)
    asset = await catalog.create(OWNER, NewAsset(title="Film"))
    newer = MediaReport(asset_id=asset.id, revision=5, state=AssetState.PROCESSING, playable=True, progress=0.5)
    older = MediaReport(asset_id=asset.id, revision=4, state=AssetState.PROCESSING, playable=False, progress=0.1)
    assert await catalog.report(newer)
    assert not await catalog.report(older)
    assert (await catalog.get(OWNER, asset.id)).progress == 0.5
    assert not await catalog.report(
        MediaReport(asset_id=new_id(Prefix.ASSET), revision=1, state=AssetState.READY, playable=True, progress=1)
    )


async def test_access_signs_in_and_out(product: Any) -> None:
    access = product(Access)
    wallet = Account.create()
    challenge = await access.challenge(ANONYMOUS, ChallengeRequest(address=wallet.address, chain_id=1), None)
    assert challenge.expires_at > datetime.now(tz=UTC)
    signature = wallet.sign_message(encode_defunct(text=challenge.message)).signature.hex()
    signed = SignIn(message=challenge.message, signature="0x" + signature.removeprefix("0x"))
    tokens = await access.sign_in(ANONYMOUS, signed, None)
    assert tokens.account == f"eip155:1:{wallet.address.lower()}"
    with pytest.raises(Unauthenticated):
        await access.sign_in(ANONYMOUS, signed, None)
    again = await access.refresh(ANONYMOUS, RefreshRequest(refresh_token=tokens.refresh_token))
    assert again.access_token != tokens.access_token
    assert len(await access.public_keys()) >= 1


async def test_access_keeps_keys(product: Any) -> None:
    access = product(Access)
    key = await access.create_key(OWNER, KeyRequest(name="uploader"))
    resolved = await access.resolve_key(key.key)
    assert (resolved.account, resolved.role, resolved.key_id) == (OWNER.account, Role.CREATOR, key.id)
    assert [item.key for item in (await access.keys(OWNER)).items] == [None]
    with pytest.raises(NotFound):
        await access.revoke_key(OTHER, key.id)
    await access.revoke_key(OWNER, key.id)
    assert not await access.credential_live(None, key.id)
    with pytest.raises(Unauthenticated):
        await access.resolve_key(key.key)
    with pytest.raises(Forbidden):
        await access.create_key(OWNER, KeyRequest(name="more", role="admin"))


async def test_access_keeps_policies_and_decides(product: Any) -> None:
    access = product(Access)
    policy = await access.create_policy(OWNER, PolicyDraft(name="Open", document=OPEN))
    assert policy.version == 1
    request = DecisionRequest(account=OTHER.account, asset_id=new_id(Prefix.ASSET), policy_id=policy.id)
    assert (await access.decide(request)).outcome == "allow"
    closed = {"v": 1, "expr": {"allowlist": {"addresses": ["0x" + "11" * 20]}}}
    newer = await access.replace_policy(OWNER, policy.id, PolicyDraft(name="Closed", document=closed))
    assert newer.version == 2
    decision = await access.decide(request)
    assert (decision.outcome, decision.policy_version, decision.leaves[0].decision) == ("deny", 2, "deny")
    with pytest.raises(NotFound):
        await access.policy(OTHER, policy.id)
    with pytest.raises(NotFound):
        await access.attachable(OTHER, policy.id)
    with pytest.raises(ValidationFailed) as refused:
        await access.create_policy(
            OWNER, PolicyDraft(name="Bad", document={"v": 1, "expr": {"any": [{"nothing": {}}]}})
        )
    assert refused.value.errors[0].pointer.startswith("/document/expr/any/0")
    nothing = DecisionRequest(account=OTHER.account, asset_id=new_id(Prefix.ASSET), policy_id=None)
    assert (await access.decide(nothing)).outcome == "deny"


async def test_uploads_and_transcoding_know_nothing_of_a_film_without_bytes(product: Any) -> None:
    asset = await product(Catalog).create(OWNER, NewAsset(title="Film"))
    for call in (
        product(Uploads).source(asset.id),
        product(Uploads).growing(asset.id),
        product(Transcoding).presentation(asset.id),
        product(Transcoding).ensure(asset.id, "v360", 0),
        product(Transcoding).retry(OTHER, asset.id),
        product(Transcoding).cancel(ANONYMOUS, asset.id),
    ):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(Conflict):
        await product(Transcoding).retry(OWNER, asset.id)


async def test_playback_asks_the_gate(product: Any) -> None:
    playback = product(Playback)
    closed = {"v": 1, "expr": {"allowlist": {"addresses": ["0x" + "11" * 20]}}}
    policy = await product(Access).create_policy(OWNER, PolicyDraft(name="Closed", document=closed))
    gated = await playable(product, Visibility.GATED, policy.id)
    with pytest.raises(Unauthenticated):
        await playback.start(ANONYMOUS, gated, PlaybackRequest())
    with pytest.raises(NotEntitled) as denied:
        await playback.start(OTHER, gated, PlaybackRequest())
    assert denied.value.extra["leaves"][0]["path"]
    started = await playback.start(OWNER, gated, PlaybackRequest())
    assert started.hls_url.startswith("http://127.0.0.1:8080/p/")
    assert [item.session_id for item in (await playback.list(OWNER)).items] == [started.session_id]
    with pytest.raises(NotFound):
        await playback.end(OTHER, started.session_id)
    await playback.end(OWNER, started.session_id)
    assert (await playback.list(OWNER)).items == ()
    private = await playable(product, Visibility.PRIVATE)
    with pytest.raises(NotFound):
        await playback.start(OTHER, private, PlaybackRequest())
    public = await playable(product, Visibility.PUBLIC)
    assert (await playback.start(ANONYMOUS, public, PlaybackRequest())).session_id
    unready = await product(Catalog).create(OWNER, NewAsset(title="Film"))
    with pytest.raises(Conflict):
        await playback.start(OWNER, unready.id, PlaybackRequest())


async def test_work_shows_nobody_the_jobs_of_others(product: Any) -> None:
    assert (await product(Work).list(ADMIN, JobQuery(subject=new_id(Prefix.ASSET)))).items == ()
    with pytest.raises(NotFound):
        await product(Work).get(OWNER, new_id(Prefix.JOB))


async def test_cache_and_status(product: Any) -> None:
    assert (await product(CachePolicy).statistics(ADMIN)).tiers
    assert (await product(CachePolicy).purge(ADMIN, PurgeRequest())).purged >= 0
    status = await product(Status).status(ADMIN)
    assert [service.service for service in status.services] == ["monolith"]
