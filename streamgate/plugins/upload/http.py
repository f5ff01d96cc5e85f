"""Routes of uploads: tus 1.0.0."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, HttpMethod, Request, Response, delete, get, head, patch, post, put, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from streamgate.domain.clock import instant
from streamgate.domain.errors import MethodNotAllowed, UnsupportedMediaType, ValidationFailed
from streamgate.domain.identity import Caller, Role
from streamgate.plugins.upload import tus
from streamgate.plugins.upload.body import Body, SenderGone
from streamgate.plugins.upload.service import UploadService
from streamgate.plugins.upload.settings import UploadSettings
from streamgate.plugins.upload.store import OPEN, Upload
from streamgate.runtime.http import least, realm
from streamgate.runtime.site import Site

PATH = "/api/v1/uploads"
AnyRequest = Request[Any, Any, Any]


class UploadView(msgspec.Struct, frozen=True, kw_only=True):
    """An upload as its owner sees it. ``offset`` and ``length`` in bytes; ``length`` null: not announced yet."""

    id: str
    asset_id: str | None
    state: str
    offset: int
    length: int | None
    filename: str | None
    filetype: str | None
    created_at: datetime
    expires_at: datetime | None


class TusVersion:
    """Names the protocol version on every answer below the path, also on errors, as tus demands; and to OPTIONS the rest."""

    def __init__(self, app: Any, *, max_size: int) -> None:
        self._app = app
        self._spoken = [
            (b"tus-version", tus.VERSION.encode()),
            (b"tus-extension", tus.EXTENSIONS.encode()),
            (b"tus-checksum-algorithm", tus.ALGORITHMS.encode()),
            (b"tus-max-size", str(max_size).encode()),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return

        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"tus-resumable", tus.VERSION.encode())]
                if scope["method"] == "OPTIONS":
                    extra += self._spoken
                elif message["status"] == 412:
                    extra.append((b"tus-version", tus.VERSION.encode()))
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        await self._app(scope, receive, named)


def controllers(service: UploadService, site: Site, settings: UploadSettings) -> list[type[Controller]]:
    """The controllers over the service."""

    def body_of(request: AnyRequest) -> Body:
        return Body(request.receive, idle_s=settings.idle_s)

    def described(upload: Upload) -> dict[str, str]:
        headers = {"cache-control": "no-store", "upload-offset": str(upload.offset)}
        if upload.length is None:
            headers["upload-defer-length"] = "1"
        else:
            headers["upload-length"] = str(upload.length)
        if upload.metadata:
            headers["upload-metadata"] = upload.metadata
        if upload.partial or upload.joined:
            headers["upload-concat"] = upload.joined or "partial"
        return headers | named(upload)

    def named(upload: Upload) -> dict[str, str]:
        headers = {"streamgate-asset": upload.asset_id} if upload.asset_id else {}
        if upload.state == OPEN:
            headers["upload-expires"] = tus.http_date(upload.expires_ms)
        return headers

    async def write(caller: Caller, upload_id: str, request: AnyRequest) -> Response[None]:
        tus.require_version(request.headers)
        _require_bytes(request)
        offset = tus.number(request.headers, "Upload-Offset")
        if offset is None:
            raise ValidationFailed("Upload-Offset is missing.").at("Upload-Offset")
        try:
            upload = await service.append(caller, upload_id, body_of(request), request.headers, offset)
        except SenderGone:
            # Nobody reads this answer; what came is stored and counted.
            return Response(None, status_code=204)
        return Response(None, status_code=204, headers={"upload-offset": str(upload.offset)} | named(upload))

    async def ahead(caller: Caller, upload_id: str, request: AnyRequest) -> Response[None]:
        tus.require_version(request.headers)
        _require_bytes(request)
        offset, size = (tus.number(request.headers, name) for name in ("Upload-Offset", "Content-Length"))
        if offset is None:
            raise ValidationFailed("Upload-Offset is missing.").at("Upload-Offset")
        with suppress(SenderGone):  # nobody reads this answer then
            await service.keep_index(caller, upload_id, body_of(request), offset, size)
        return Response(None, status_code=204)

    async def ask(caller: Caller, upload_id: str, request: AnyRequest) -> Response[None]:
        tus.require_version(request.headers)
        upload = await service.settled(caller, upload_id)
        return Response(None, status_code=200, headers=described(upload))

    async def end(caller: Caller, upload_id: str, request: AnyRequest) -> Response[None]:
        tus.require_version(request.headers)
        await service.terminate(caller, upload_id)
        return Response(None, status_code=204)

    class UploadController(Controller):
        path = PATH
        tags = ("uploads",)
        opt = realm("uploads")
        request_max_body_size = None

        @route(
            "/",
            http_method=[HttpMethod.OPTIONS],
            status_code=204,
            opt=least(Role.ANONYMOUS),
            operation_id="describeUploads",
            summary="What this server speaks of tus",
        )
        async def options(self) -> Response[None]:
            """Version, extensions, checksum algorithms and largest size, in headers."""
            return Response(None, status_code=204)

        @post("/", opt=least(Role.CREATOR), operation_id="createUpload", summary="Announce an upload")
        async def create(self, caller: NamedDependency[Caller], request: AnyRequest) -> Response[None]:
            """tus creation. Keys of Upload-Metadata: filename filetype title policy_id visibility."""
            tus.require_version(request.headers)
            upload = await service.create(caller, request.headers)
            headers = {"location": f"{site.public_url}{PATH}/{upload.id}"}
            if request.headers.get("content-type") == tus.CONTENT_TYPE and upload.state == OPEN:
                try:
                    upload = await service.append(caller, upload.id, body_of(request), _without_length(request), 0)
                except SenderGone:
                    upload = await service.find(caller, upload.id)
                headers["upload-offset"] = str(upload.offset)
            return Response(None, status_code=201, headers=headers | named(upload))

        @head(
            "/{upload_id:str}", opt=least(Role.CREATOR), operation_id="askUpload", summary="Ask where an upload stands"
        )
        async def ask(
            self, caller: NamedDependency[Caller], upload_id: FromPath[str], request: AnyRequest
        ) -> Response[None]:
            """The offset to go on at; a writer that still runs hands over first."""
            return await ask(caller, upload_id, request)

        @get("/{upload_id:str}", opt=least(Role.CREATOR), operation_id="getUpload", summary="Read an upload")
        async def read(self, caller: NamedDependency[Caller], upload_id: FromPath[str]) -> Response[UploadView]:
            """The same as JSON."""
            upload = await service.find(caller, upload_id)
            return Response(_view(upload), headers=named(upload))

        @patch(
            "/{upload_id:str}",
            status_code=204,
            opt=least(Role.CREATOR),
            operation_id="appendUpload",
            summary="Send bytes",
        )
        async def append(
            self, caller: NamedDependency[Caller], upload_id: FromPath[str], request: AnyRequest
        ) -> Response[None]:
            """Bytes from Upload-Offset on; durable before the answer."""
            return await write(caller, upload_id, request)

        @put(
            "/{upload_id:str}/index",
            status_code=204,
            opt=least(Role.CREATOR),
            operation_id="sendIndex",
            summary="Send the end of a file ahead",
        )
        async def index(
            self, caller: NamedDependency[Caller], upload_id: FromPath[str], request: AnyRequest
        ) -> Response[None]:
            """The file from Upload-Offset to its end, where its index is: the film then plays while the rest comes."""
            return await ahead(caller, upload_id, request)

        @delete("/{upload_id:str}", opt=least(Role.CREATOR), operation_id="endUpload", summary="Give an upload up")
        async def remove(
            self, caller: NamedDependency[Caller], upload_id: FromPath[str], request: AnyRequest
        ) -> Response[None]:
            """Its bytes and film go; a completed upload's film stays."""
            return await end(caller, upload_id, request)

        @post("/{upload_id:str}", opt=least(Role.CREATOR), include_in_schema=False)
        async def override(
            self, caller: NamedDependency[Caller], upload_id: FromPath[str], request: AnyRequest
        ) -> Response[None]:
            """For clients that can only POST: X-HTTP-Method-Override."""
            method = request.headers.get("x-http-method-override", "").upper()
            acts = {"PATCH": write, "DELETE": end, "HEAD": ask}
            if method not in acts:
                raise MethodNotAllowed("Send X-HTTP-Method-Override: PATCH, HEAD or DELETE with a POST to an upload.")
            return await acts[method](caller, upload_id, request)

    return [UploadController]


def _view(upload: Upload) -> UploadView:
    return UploadView(
        id=upload.id,
        asset_id=upload.asset_id,
        state=upload.state,
        offset=upload.offset,
        length=upload.length,
        filename=upload.filename,
        filetype=upload.filetype,
        created_at=instant(upload.created_ms),
        expires_at=instant(upload.expires_ms) if upload.state == OPEN else None,
    )


def _require_bytes(request: AnyRequest) -> None:
    if request.headers.get("content-type") != tus.CONTENT_TYPE:
        raise UnsupportedMediaType(f"Send the bytes as Content-Type: {tus.CONTENT_TYPE}.")


def _without_length(request: AnyRequest) -> dict[str, str]:
    """The headers of a creation that concern its body."""
    return {name: value for name, value in request.headers.items() if name != "upload-length"}
