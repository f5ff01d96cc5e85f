"""Routes of the gateway itself."""

from __future__ import annotations

from litestar import Controller, MediaType, Response, get

from streamgate.domain.errors import NotFound
from streamgate.domain.identity import Role
from streamgate.plugins.api_gateway import documents
from streamgate.runtime.http import least


def controllers(*, docs: bool) -> list[type[Controller]]:
    """The controllers; ``docs`` False hides the documentation page."""
    snapshot = documents.snapshot()
    page = documents.page(snapshot) if docs else b""

    class DocumentController(Controller):
        include_in_schema = False

        @get("/openapi.json", opt=least(Role.ANONYMOUS))
        async def openapi(self) -> Response[bytes]:
            """The OpenAPI 3.1 document."""
            return Response(snapshot, media_type="application/openapi+json", headers={"cache-control": "no-cache"})

        @get("/docs", opt=least(Role.ANONYMOUS))
        async def read(self) -> Response[bytes]:
            """The same for people."""
            if not docs:
                raise NotFound("The documentation page is switched off here.")
            policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
            return Response(page, media_type=MediaType.HTML, headers={"content-security-policy": policy})

    return [DocumentController]
