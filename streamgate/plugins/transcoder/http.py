"""Routes of the transcoder."""

from __future__ import annotations

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from streamgate.contracts.transcoder import Transcoding
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm


def controllers(transcoding: Transcoding) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class TranscodingController(Controller):
        path = "/api/v1/assets/{asset_id:str}"
        tags = ("assets",)
        opt = realm("assets")

        @post(
            "/retry",
            status_code=202,
            opt=least(Role.CREATOR),
            operation_id="retryAsset",
            summary="Encode a failed or canceled film again",
        )
        async def retry(self, caller: NamedDependency[Caller], asset_id: FromPath[str]) -> None:
            """What is encoded already is kept."""
            await transcoding.retry(caller, asset_id)

        @post(
            "/cancel",
            status_code=202,
            opt=least(Role.CREATOR),
            operation_id="cancelAsset",
            summary="Stop encoding a film",
        )
        async def cancel(self, caller: NamedDependency[Caller], asset_id: FromPath[str]) -> None:
            """What is encoded already still plays."""
            await transcoding.cancel(caller, asset_id)

    return [TranscodingController]
