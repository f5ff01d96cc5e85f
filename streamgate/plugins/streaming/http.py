"""Routes of playback."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from streamgate.contracts.streaming import Playback, PlaybackPage, PlaybackRequest, PlaybackStarted
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.http import least, realm


def controllers(playback: Playback) -> list[type[Controller]]:
    """The controllers over an implementation of the contract."""

    class PlaybackController(Controller):
        path = "/api/v1"
        tags = ("playback",)
        opt = realm("playback")

        @post(
            "/assets/{asset_id:str}/playback",
            opt=least(Role.ANONYMOUS),
            operation_id="startPlayback",
            summary="Start playback of a film",
        )
        async def start(
            self,
            caller: NamedDependency[Caller],
            asset_id: FromPath[str],
            data: JSONBody[PlaybackRequest | None] = None,
        ) -> PlaybackStarted:
            """Evaluate the film's policy and answer with addresses that any player opens."""
            return await playback.start(caller, asset_id, data or PlaybackRequest())

        @get("/playback", opt=least(Role.VIEWER), operation_id="listPlayback", summary="List one's playback sessions")
        async def listing(self, caller: NamedDependency[Caller]) -> PlaybackPage:
            """The caller's sessions that were used lately, newest first."""
            return await playback.list(caller)

        @delete(
            "/playback/{session_id:str}",
            opt=least(Role.VIEWER),
            operation_id="endPlayback",
            summary="End a playback session",
        )
        async def end(self, caller: NamedDependency[Caller], session_id: FromPath[str]) -> None:
            """Its addresses answer 403 from now on."""
            await playback.end(caller, session_id)

    return [PlaybackController]
