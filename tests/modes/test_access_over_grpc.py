"""Every method of every contract, called by everybody: at the service that owns it, and through the gateway."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamgate.contracts import auth, cache, metadata, streaming, worker
from streamgate.contracts.auth import Access
from streamgate.contracts.declare import contracts, declaration, open_to, scope_of
from streamgate.contracts.metadata import Catalog, NewAsset
from streamgate.domain.asset import AssetState
from streamgate.domain.clock import SystemClock
from streamgate.domain.identity import ANONYMOUS, SCOPES, Caller, Prefix, Role, new_id
from streamgate.plugins.api_gateway.documents import snapshot
from streamgate.plugins.auth.tokens import AccessTokens, load_seeds
from streamgate.runtime.rpc.schema import Rpc
from streamgate.runtime.rpc.tokens import ServiceSigner
from streamgate.runtime.site import Site
from tests.support.clock import FakeClock
from tests.support.front import CODEC, KEYS, front, product_apart
from tests.support.wallet import Wallet

PEOPLE = ("anonymous", "viewer", "creator", "owner", "admin")
CODES = {
    "o": "OK",
    "u": "UNAUTHENTICATED",
    "p": "PERMISSION_DENIED",
    "n": "NOT_FOUND",
    "i": "INVALID_ARGUMENT",
    "f": "FAILED_PRECONDITION",
}


@dataclass(frozen=True)
class Row:
    """``codes``: what nobody, a viewer, another creator, the film's owner and an administrator get, a letter each (`CODES`).

    None: the method is of services alone. ``operation``: the operation of the REST API that is opened to the same people.
    ``key``: what an API key of the owner's gets, where that is another code.
    """

    codes: str | None
    operation: str | None = None
    key: str | None = None


CLOCK = SystemClock()
CHANNELS: dict[str, Any] = {}
DRAFT = auth.PolicyDraft(
    name="Open", document={"v": 1, "expr": {"time_window": {"from": "2020-01-01T00:00:00Z", "until": None}}}
)
REQUESTS: dict[str, Any] = {
    "AccessChallengeRequest": auth.ChallengeRequest(address=Wallet().address, chain_id=1),
    "AccessSignInRequest": auth.SignIn(message="no challenge", signature="0x"),
    "AccessRefreshRequest": auth.RefreshRequest(refresh_token="sg_rt_none"),
    "AccessCreateKeyRequest": auth.KeyRequest(name="k", role="viewer", scopes=("keys:write",)),
    "AccessDecideRequest": auth.DecisionRequest(account=None, asset_id=new_id(Prefix.ASSET), policy_id=None),
    "CachePolicyPurgeRequest": cache.PurgeRequest(),
    "CachePolicyWarmRequest": cache.WarmRequest(asset_ids=(new_id(Prefix.ASSET),)),
    "PlaybackStartRequest": streaming.PlaybackRequest(),
}
OURS = Row(None)
MATRIX: dict[str, Row] = {
    "auth.v1.Access/Challenge": Row("ooooo", "createChallenge"),
    "auth.v1.Access/SignIn": Row("uuuuu", "signIn"),
    "auth.v1.Access/Refresh": Row("uuuuu", "refreshSession"),
    "auth.v1.Access/Session": Row("uoooo", "readSession"),
    "auth.v1.Access/Sessions": Row("uoooo", "listSessions"),
    "auth.v1.Access/RevokeSession": Row("unnnn", "revokeSession"),
    "auth.v1.Access/CreateKey": Row("upooo", "createKey"),
    "auth.v1.Access/Keys": Row("upooo", "listKeys"),
    "auth.v1.Access/RevokeKey": Row("upnnn", "revokeKey"),
    "auth.v1.Access/CreatePolicy": Row("upooo", "createPolicy"),
    "auth.v1.Access/Policies": Row("upooo", "listPolicies"),
    "auth.v1.Access/Policy": Row("upnoo", "getPolicy"),
    "auth.v1.Access/ReplacePolicy": Row("upnoo", "replacePolicy"),
    "auth.v1.Access/Evaluate": Row("upnoo", "evaluatePolicy"),
    "auth.v1.Access/Attachable": OURS,
    "auth.v1.Access/Summaries": OURS,
    "auth.v1.Access/ResolveKey": OURS,
    "auth.v1.Access/PublicKeys": OURS,
    "auth.v1.Access/CredentialLive": OURS,
    "auth.v1.Access/Decide": OURS,
    "cache.v1.CachePolicy/Statistics": Row("upppo", "cacheStatistics"),
    "cache.v1.CachePolicy/Purge": Row("upppo", "purgeCache"),
    "cache.v1.CachePolicy/Warm": Row("upppo", "warmCache"),
    "metadata.v1.Catalog/Create": Row("upooo"),
    "metadata.v1.Catalog/Get": Row("nnnoo", "getAsset"),
    "metadata.v1.Catalog/List": Row("ooooo", "listAssets"),
    "metadata.v1.Catalog/Update": Row("upnoo", "updateAsset"),
    "metadata.v1.Catalog/Delete": Row("upnnn", "deleteAsset"),
    "metadata.v1.Catalog/RequireOwner": OURS,
    "metadata.v1.Catalog/Access": OURS,
    "metadata.v1.Catalog/ColdDays": OURS,
    "metadata.v1.Catalog/Discard": OURS,
    "metadata.v1.Catalog/Report": OURS,
    "monitor.v1.Status/Status": Row("upppo", "systemStatus"),
    "streaming.v1.Playback/Start": Row("nnnff", "startPlayback"),
    "streaming.v1.Playback/List": Row("uoooo", "listPlayback"),
    "streaming.v1.Playback/End": Row("unnnn", "endPlayback"),
    "transcoder.v1.Transcoding/Presentation": OURS,
    "transcoder.v1.Transcoding/Ensure": OURS,
    "transcoder.v1.Transcoding/Stored": OURS,
    "transcoder.v1.Transcoding/Sheet": OURS,
    "transcoder.v1.Transcoding/Lost": OURS,
    "transcoder.v1.Transcoding/Retry": Row("upnff", "retryAsset"),
    "transcoder.v1.Transcoding/Cancel": Row("upnff", "cancelAsset"),
    "upload.v1.Uploads/Growing": OURS,
    "upload.v1.Uploads/Source": OURS,
    "worker.v1.Work/List": Row("upooo", "listJobs"),
    "worker.v1.Work/Get": Row("upnnn", "getJob"),
    "worker.v1.Work/Retry": Row("upnnn", "retryJob"),
    "worker.v1.Work/Cancel": Row("upnnn", "cancelJob"),
    "worker.v1.Work/Schedules": Row("upppo", "listSchedules"),
    # Last, since it ends the sessions that the others are called under.
    "auth.v1.Access/SignOut": Row("uooop", "signOut", key="p"),
}


METHODS: dict[str, tuple[type, Rpc]] = {
    f"{path.removeprefix('streamgate.')}/{rpc.name}": (kind, rpc)
    for kind in contracts()
    for path, rpcs in [CODEC.services[kind]]
    for rpc in rpcs
}
"""Every method there is, by the name that it has in `MATRIX`."""


def test_every_method_of_every_contract_has_a_row() -> None:
    assert set(METHODS) == set(MATRIX)
    assert {name for name, (_, rpc) in METHODS.items() if open_to(rpc.function) is None} == {
        name for name, row in MATRIX.items() if row.codes is None
    }


def test_a_method_is_open_to_those_whom_its_operation_over_http_is_open_to() -> None:
    operations = {
        operation["operationId"]: operation
        for item in json.loads(snapshot())["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict) and "operationId" in operation
    }
    for name, row in MATRIX.items():
        _, rpc = METHODS[name]
        least, scope = open_to(rpc.function), scope_of(rpc.function)
        if row.operation is not None:
            assert least is not None, name
            operation = operations[row.operation]
            assert (least.name.lower(), scope) == (operation["x-least-role"], operation.get("x-scope")), name
        assert (scope is None) == (least is None), name


class World:
    """The product, the gRPC port of each service and of the gateway, and somebody of each kind with a credential."""

    def __init__(self, running: Any, ports: dict[str, int], gateway: str) -> None:
        self.running, self.ports, self.gateway = running, ports, gateway
        self.access: Access = running.assembled.bound[Access]
        self.site: Site = running.site
        self.tokens: dict[str, str] = {"admin": (self.site.data_dir / "admin.key").read_text().strip()}
        self.film = self.policy = ""
        self.owner = ANONYMOUS

    async def people(self, creator: Wallet, owner: Wallet) -> None:
        """Sign everybody in; the owner has a film and a policy."""
        for name, wallet in (("creator", creator), ("owner", owner), ("viewer", Wallet())):
            asked = auth.ChallengeRequest(address=wallet.address, chain_id=1)
            message = (await self.access.challenge(ANONYMOUS, asked, None)).message
            signed = auth.SignIn(message=message, signature=wallet.sign(message))
            self.tokens[name] = (await self.access.sign_in(ANONYMOUS, signed, None)).access_token
        self.owner = await self.known(self.tokens["owner"])
        catalog: Catalog = self.running.assembled.bound[Catalog]
        self.film = (await catalog.create(self.owner, NewAsset(title="Film"))).id
        self.policy = (await self.access.create_policy(self.owner, DRAFT)).id

    async def known(self, token: str) -> Caller:
        """Whose credential it is."""
        found: Caller = await self.running.authenticator().caller(f"Bearer {token}")
        return found

    async def narrowed(self, who: str, scopes: tuple[str, ...]) -> str:
        """An API key of somebody's, with those scopes alone."""
        caller = await self.known(self.tokens[who])
        role: Any = "admin" if who == "admin" else "creator"
        return str((await self.access.create_key(caller, auth.KeyRequest(name="k", scopes=scopes, role=role))).key)

    def request(self, rpc: Rpc, caller: Caller) -> bytes:
        """What the method is asked: about the owner's film and policy, else about things that are not there."""
        given = {
            "caller": caller,
            "asset_id": self.film,
            "policy_id": self.policy,
            "key": self.tokens["admin"],
            "session_id": new_id(Prefix.PLAYBACK),
            "key_id": new_id(Prefix.KEY),
            "job_id": new_id(Prefix.JOB),
            "draft": DRAFT,
            "request": REQUESTS.get(rpc.request.__name__),
            "new": NewAsset(title="Another"),
            "query": worker.JobQuery() if rpc.request.__name__.startswith("Work") else metadata.AssetQuery(),
            "changes": metadata.AssetChanges(description="changed"),
            "rendition": "v1080",
            "number": 0,
            "limit": 10,
            "policy_ids": (self.policy,),
            "report": metadata.MediaReport(
                asset_id=self.film, revision=1, state=AssetState.UPLOADING, playable=False, progress=0
            ),
        }
        if rpc.name in {"Delete", "Discard"}:
            given["asset_id"] = new_id(Prefix.ASSET)
        if rpc.request.__name__ == "AccessEvaluateRequest":
            given["request"] = auth.EvaluationRequest(account=self.owner.account or "", policy_id=self.policy)
        wanted = {name: given.get(name) for name, _ in rpc.method.parameters}
        return CODEC.encoder(rpc.request)(rpc.request(**wanted))

    def refused(self) -> dict[str, str]:
        """Credentials that are not good anywhere, by what is wrong with them."""
        seeds, account, session = load_seeds(None, self.site.data_dir), str(self.owner.account), new_id(Prefix.SESSION)

        def minted(seeds: Any = seeds, site: Site = self.site, clock: Any = CLOCK) -> str:
            return AccessTokens(seeds, site, clock, 60).mint(account, Role.ADMIN, session)

        head, body, _ = minted().split(".")
        none = {**json.loads(base64.urlsafe_b64decode(head + "==")), "alg": "none"}
        return {
            "expired": minted(clock=FakeClock()),
            "of a key that nobody knows": minted((("two", bytes(32)),)),
            "forged under the name of a key": minted(((seeds[0][0], bytes(32)),)),
            "of another installation": minted(site=dataclasses.replace(self.site, public_url="https://other.example")),
            "unsigned": f"{base64.urlsafe_b64encode(json.dumps(none).encode()).rstrip(b'=').decode()}.{body}.",
            "an ended key": "sg_key_" + "x" * 43,
            "nonsense": "nonsense",
        }

    def refused_of_services(self, callee: str) -> dict[str, str]:
        """The same for service tokens."""
        stranger = Ed25519PrivateKey.generate()
        elsewhere = "cache" if callee != "cache" else "auth"
        return {
            "over": ServiceSigner("streaming", KEYS["streaming"], FakeClock()).token(callee),
            "forged": ServiceSigner("streaming", stranger, CLOCK).token(callee),
            "of an unknown service": ServiceSigner("stranger", stranger, CLOCK).token(callee),
            "in another's name": ServiceSigner("streaming", KEYS["upload"], CLOCK).token(callee),
            "for another callee": ServiceSigner("streaming", KEYS["streaming"], CLOCK).token(elsewhere),
        }

    async def ask(self, at: str, name: str, token: str | None, caller: Caller = ANONYMOUS) -> str:
        """The status that a method's call gets, at its service or at the gateway."""
        kind, rpc = METHODS[name]
        target = self.gateway if at == "gateway" else f"127.0.0.1:{self.ports[declaration(kind).service]}"
        channel = CHANNELS.setdefault(target, grpc.aio.insecure_channel(target))
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        call = channel.unary_unary(f"/streamgate.{name}")(self.request(rpc, caller), metadata=metadata, timeout=30)
        return str((await call.code()).name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    creators = (Wallet(), Wallet())
    told = {
        "STREAMGATE_AUTH__CREATORS": json.dumps([wallet.address for wallet in creators]),
        "STREAMGATE_PUBLIC_URL": "http://films.example",
    }
    generous = {"requests_burst": 100_000, "anonymous_burst": 100_000, "sign_in_burst": 100_000}
    settings = {"public_url": "http://films.example", "api_gateway": generous}
    async with product_apart(tmp_path / "product", settings=told) as (running, ports):
        async with front(tmp_path / "gateway", ports, settings) as gateway:
            made = World(running, ports, gateway.target)
            await made.people(*creators)
            yield made
            for channel in CHANNELS.values():
                await channel.close()
            CHANNELS.clear()


async def test_every_method_is_as_closed_at_its_service_as_through_the_gateway(world: World) -> None:
    wrong: list[str] = []

    async def expect(who: str, at: str, name: str, expected: str, token: str | None) -> None:
        got = await world.ask(at, name, token, Caller(account="admin", role=Role.ADMIN))
        if got != expected:
            wrong.append(f"{who} asks {name} at the {at}: {got}, not {expected}")

    keys = {}
    for who in ("owner", "admin"):
        for scope in (None, *SCOPES):
            others = tuple(other for other in SCOPES if other != scope)
            keys[who, scope] = [await world.narrowed(who, others)]
            if scope is not None:
                keys[who, scope].append(await world.narrowed(who, (scope,)))
    for name, row in MATRIX.items():
        kind, rpc = METHODS[name]
        service, scope = declaration(kind).service, scope_of(rpc.function)
        for at in ("service", "gateway"):
            absent = "UNIMPLEMENTED" if at == "gateway" and row.codes is None else None
            for person, letter in zip(PEOPLE, row.codes or "upppp", strict=True):
                await expect(person, at, name, absent or CODES[letter], world.tokens.get(person))
            for who in ("owner", "admin"):
                full = (row.codes or "ppppp")[PEOPLE.index(who)]
                if who == "owner" and row.key is not None:
                    full = row.key
                for key, letter in zip(keys[who, scope], "p" + full, strict=False):
                    await expect(f"the {who}'s narrowed key", at, name, absent or CODES[letter], key)
            for what, token in (world.refused() | world.refused_of_services(service)).items():
                await expect(f"a credential that is {what}", at, name, absent or "UNAUTHENTICATED", token)
            if at == "gateway":
                for caller, secret in KEYS.items():
                    token = ServiceSigner(caller, secret, CLOCK).token(service)
                    await expect(caller, at, name, absent or "UNAUTHENTICATED", token)
    assert wrong == []


async def test_every_service_may_call_every_method_of_another_and_speaks_for_people(world: World) -> None:
    wrong = []
    admin = await world.known(world.tokens["admin"])
    for name, row in MATRIX.items():
        service = declaration(METHODS[name][0]).service
        expected = {CODES[row.codes[-1]]} if row.codes else {"OK", "NOT_FOUND"}
        for caller in KEYS.keys() - {service}:
            token = ServiceSigner(caller, KEYS[caller], CLOCK).token(service)
            got = await world.ask("service", name, token, admin)
            if got not in expected:
                wrong.append(f"{caller}, speaking for the administrator, asks {name}: {got}, not {expected}")
    assert wrong == []
