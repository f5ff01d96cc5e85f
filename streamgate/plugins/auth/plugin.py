"""Sign-in with wallets, API keys, policies and the decisions of the gate."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from streamgate.contracts.auth import Access
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.auth.settings import AuthSettings
from streamgate.ports.chain import Chains
from streamgate.runtime.database import Database
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.schedules import Schedules
from streamgate.runtime.site import Site

SWEEP_EVERY_S = 300.0


@asynccontextmanager
async def setup(context: Context[AuthSettings]) -> AsyncGenerator[Parts, None]:
    """Start auth."""
    from streamgate.plugins.auth.chain_reads import ChainReads
    from streamgate.plugins.auth.decisions import Judge
    from streamgate.plugins.auth.http import controllers
    from streamgate.plugins.auth.keys import KeyRing, load_admin_key
    from streamgate.plugins.auth.policies import PolicyShelf
    from streamgate.plugins.auth.roles import Roles
    from streamgate.plugins.auth.service import AccessService
    from streamgate.plugins.auth.sign_in import SignInDesk
    from streamgate.plugins.auth.signatures import Signatures
    from streamgate.plugins.auth.tokens import AccessTokens, load_seeds

    settings, site, clock = context.settings, context.need(Site), context.need(Clock)
    database, outbox = context.need(Database), context.need(Outbox)
    roles = Roles(settings)
    tokens = AccessTokens(load_seeds(settings.signing_keys_file, site.data_dir), site, clock, settings.access_token_s)
    desk = SignInDesk(
        settings=settings,
        database=database,
        outbox=outbox,
        tokens=tokens,
        signatures=Signatures(),
        roles=roles,
        site=site,
        clock=clock,
    )
    keys = KeyRing(
        database=database,
        outbox=outbox,
        roles=roles,
        clock=clock,
        admin_key=load_admin_key(settings.admin_key_file, site.data_dir),
    )
    policies = PolicyShelf(database=database, outbox=outbox, clock=clock)
    reads = ChainReads(context.need(Chains), clock)
    judge = Judge(policies=policies, reads=reads, clock=clock, default_ttl_s=settings.default_ttl_s)
    service = AccessService(desk=desk, keys=keys, policies=policies, judge=judge, tokens=tokens)
    access: Access = service
    async with context.need(Schedules).every(SWEEP_EVERY_S, desk.sweep, name="sign-in sweep", at_once=True):
        yield Parts(provides={Access: access}, routes=controllers(access), health=reads.health)


plugin = Plugin(
    name="auth",
    settings=AuthSettings,
    setup=setup,
    requires=(Database, Schedules, Outbox, Chains, Site, Clock),
    provides=(Access,),
)
