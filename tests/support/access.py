"""The auth plugin's parts over a real database and a clock that moves when told to."""

from __future__ import annotations

from pathlib import Path

from streamgate.adapters.bus_memory import MemoryBus
from streamgate.contracts.auth import Access
from streamgate.kernel import LoopbackBinding
from streamgate.plugins.auth.chain_reads import ChainReads
from streamgate.plugins.auth.decisions import Judge
from streamgate.plugins.auth.keys import KeyRing
from streamgate.plugins.auth.policies import PolicyShelf
from streamgate.plugins.auth.roles import Roles
from streamgate.plugins.auth.service import AccessService
from streamgate.plugins.auth.settings import AuthSettings
from streamgate.plugins.auth.sign_in import SignInDesk
from streamgate.plugins.auth.signatures import Signatures
from streamgate.plugins.auth.tokens import AccessTokens
from streamgate.ports.chain import Chains
from streamgate.runtime.database import Database
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.site import Site
from tests.support.clock import FakeClock

PUBLIC_URL = "https://films.example"
ADMIN_KEY = "sg_admin_" + "k" * 43
SEED = ("one", bytes(range(32)))


def site(data_dir: Path, public_url: str = PUBLIC_URL) -> Site:
    """An installation at ``public_url``."""
    return Site(
        public_url=public_url,
        media_url=public_url,
        allowed_origins=frozenset({public_url}),
        data_dir=data_dir,
        environment="development",
        service="monolith",
        version="0",
    )


def access(database: Database, clock: FakeClock, chains: Chains, data_dir: Path, **settings: object) -> Access:
    """The auth service, bound as over a wire."""
    configured = AuthSettings.model_validate({"creators": ["*"], **settings})
    outbox = Outbox(database, MemoryBus(), clock)
    roles = Roles(configured)
    tokens = AccessTokens((SEED,), site(data_dir), clock, configured.access_token_s)
    policies = PolicyShelf(database=database, outbox=outbox, clock=clock)
    service = AccessService(
        desk=SignInDesk(
            settings=configured,
            database=database,
            outbox=outbox,
            tokens=tokens,
            signatures=Signatures(),
            roles=roles,
            site=site(data_dir),
            clock=clock,
        ),
        keys=KeyRing(database=database, outbox=outbox, roles=roles, clock=clock, admin_key=ADMIN_KEY),
        policies=policies,
        judge=Judge(
            policies=policies,
            reads=ChainReads(chains, clock),
            clock=clock,
            default_ttl_s=configured.default_ttl_s,
        ),
        tokens=tokens,
    )
    bound: Access = LoopbackBinding()(Access, service)  # type: ignore[assignment]
    return bound
