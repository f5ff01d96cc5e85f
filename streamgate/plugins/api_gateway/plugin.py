"""The gateway: what stands at the product's public door: CORS, safe headers, rate limits and the API's description."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from streamgate.contracts.auth import Access
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.ports.limiter import Limiter
from streamgate.runtime.site import Site


@asynccontextmanager
async def setup(context: Context[GatewaySettings]) -> AsyncGenerator[Parts, None]:
    """Start the gateway."""
    from streamgate.plugins.api_gateway.cors import Cors
    from streamgate.plugins.api_gateway.http import controllers
    from streamgate.plugins.api_gateway.limits import Limits
    from streamgate.runtime.identity import Authenticator

    settings, site = context.settings, context.need(Site)
    authenticator = Authenticator(site, context.need(Access), context.need(Clock))
    limits = partial(Limits, limiter=context.need(Limiter), authenticator=authenticator, settings=settings)
    cors = partial(Cors, site=site, max_age_s=settings.preflight_max_age_s)
    yield Parts(routes=controllers(docs=settings.docs), middleware=(limits, cors))


plugin = Plugin(name="api-gateway", settings=GatewaySettings, setup=setup, requires=(Site, Clock, Limiter, Access))
