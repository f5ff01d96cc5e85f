"""The gateway: what stands at the product's public door. In one process it is CORS, safe headers and the API's description."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from streamgate.kernel import Context, Parts, Plugin
from streamgate.plugins.api_gateway.settings import GatewaySettings
from streamgate.runtime.site import Site


@asynccontextmanager
async def setup(context: Context[GatewaySettings]) -> AsyncGenerator[Parts, None]:
    """Start the gateway."""
    from streamgate.plugins.api_gateway.cors import Cors
    from streamgate.plugins.api_gateway.http import controllers

    settings = context.settings
    cors = partial(Cors, origins=context.need(Site).allowed_origins, max_age_s=settings.preflight_max_age_s)
    yield Parts(routes=controllers(docs=settings.docs), middleware=(cors,))


plugin = Plugin(name="api-gateway", settings=GatewaySettings, setup=setup, requires=(Site,))
