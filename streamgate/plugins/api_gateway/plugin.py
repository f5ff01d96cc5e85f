"""The gateway: what stands at the product's public door: CORS, safe headers, rate limits and the API's description.

Requests for services that run in other processes it sends on to them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from streamgate.contracts.auth import Access
from streamgate.contracts.declare import contracts, declaration, declarations, has_open_methods, installed
from streamgate.domain.clock import Clock
from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.ports.discovery import Discovery
from streamgate.ports.limiter import Limiter
from streamgate.runtime.site import Residents, Site


@asynccontextmanager
async def setup(context: Context[GatewaySettings]) -> AsyncGenerator[Parts, None]:
    """Start the gateway."""
    from streamgate.plugins.api_gateway.cors import Cors
    from streamgate.plugins.api_gateway.http import controllers
    from streamgate.plugins.api_gateway.limits import Limits, Meter
    from streamgate.runtime.identity import Authenticator

    settings, site = context.settings, context.need(Site)
    authenticator = Authenticator(site, context.need(Access), context.need(Clock))
    meter = Meter(limiter=context.need(Limiter), authenticator=authenticator, settings=settings)
    limits = partial(Limits, meter=meter)
    cors = partial(Cors, site=site, max_age_s=settings.preflight_max_age_s)
    routes = controllers(docs=settings.docs)
    residents = context.need(Residents).services
    elsewhere = [kind for kind in (*contracts(), *installed()) if declaration(kind).service not in residents]
    async with AsyncExitStack() as stack:
        if not elsewhere:
            yield Parts(routes=routes, middleware=(limits, cors))
            return
        from streamgate.plugins.api_gateway.calls import CallDoor
        from streamgate.plugins.api_gateway.forwarding import Breakers, Forwarding, lines
        from streamgate.plugins.api_gateway.replicas import Replicas
        from streamgate.plugins.api_gateway.routing import Routes, refuse_overlaps

        refuse_overlaps(declarations(), map(declaration, installed()))
        breakers = Breakers(context.need(Clock))
        forwarding = partial(
            Forwarding,
            routes=Routes(declaration(kind) for kind in elsewhere),
            replicas=Replicas(context.need(Discovery), context.need(Clock)),
            breakers=breakers,
            lines=await stack.enter_async_context(lines(settings)),
            settings=settings,
        )
        yield Parts(
            routes=routes,
            middleware=(forwarding, limits, cors),
            forwards=dict.fromkeys(filter(has_open_methods, elsewhere), CallDoor(meter)),
            health=breakers.health,
        )


plugin = Plugin(
    name="api-gateway",
    settings=GatewaySettings,
    setup=setup,
    requires=(Site, Residents, Clock, Limiter, Discovery, Access),
)
