"""Playback sessions: begun at the gate, ended by their holder, by the end of the credential, or with the film."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamgate.contracts.auth import Access, CredentialEnded, PolicyChanged
from streamgate.contracts.metadata import AssetAccess, AssetChanged, AssetDeleted, Catalog
from streamgate.contracts.streaming import PlaybackPage, PlaybackRequest, PlaybackStarted, PlaybackView, SessionEnded
from streamgate.domain.asset import Visibility
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import Conflict, NotFound, Unauthenticated, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id, new_id
from streamgate.kernel import Check
from streamgate.plugins.streaming import store
from streamgate.plugins.streaming.gate import Gate
from streamgate.plugins.streaming.library import Library
from streamgate.plugins.streaming.settings import StreamingSettings
from streamgate.plugins.streaming.store import Session
from streamgate.plugins.streaming.tokens import PlaybackTokens
from streamgate.runtime.database import Database
from streamgate.runtime.site import Site

MAX_LISTED = 100
MAX_TOKENS = 16
_TOKEN_ID = re.compile(r"(0|[1-9][0-9]{0,77})\Z")
KEPT_AFTER_END_S = 24 * 3600


class PlaybackService:
    """Implements `contracts.streaming.Playback`."""

    def __init__(
        self,
        *,
        settings: StreamingSettings,
        gate: Gate,
        tokens: PlaybackTokens,
        library: Library,
        catalog: Catalog,
        access: Access,
        database: Database,
        site: Site,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._tokens = tokens
        self._library = library
        self._catalog = catalog
        self._access = access
        self._database = database
        self._site = site
        self._clock = clock

    async def start(self, caller: Caller, asset_id: str, request: PlaybackRequest) -> PlaybackStarted:
        began = self._clock.now_ms()
        film = await self._catalog.access(asset_id)
        if film.visibility is Visibility.PRIVATE and not caller.owns(film.owner):
            raise NotFound("There is no such film.")
        self._check_hint(caller, request)
        credential = (caller.session_id, caller.key_id)
        if any(credential) and not await self._access.credential_live(*credential):
            raise Unauthenticated("This session was signed out. Sign in again.")
        grant = (await self._gate.decide(caller, film, request.token_ids)).counted_from(began)
        if not film.playable:
            raise Conflict("The film is not playable yet. Try again in a moment.")
        session = self._new_session(caller, film, request)
        await self._gate.settle(session, grant, takeover=request.takeover, new=True)
        self._gate.begin(session, grant)
        base = (
            f"{self._site.media_url}/p/{self._tokens.mint(session.id, asset_id, session.expires_ms // 1000)}/{asset_id}"
        )
        return PlaybackStarted(
            session_id=session.id,
            hls_url=f"{base}/master.m3u8",
            dash_url=f"{base}/manifest.mpd",
            poster_url=f"{base}/poster.jpg" if film.poster_key else None,
            storyboard_url=f"{base}/storyboard.vtt" if await self._library.has_storyboard(asset_id) else None,
            expires_at=instant(session.expires_ms),
            max_staleness_s=grant.max_staleness_s + (self._site.redirect_s or 0),
        )

    async def list(self, caller: Caller) -> PlaybackPage:
        caller.require(Role.VIEWER)
        now = self._clock.now_ms()
        async with self._database.read() as connection:
            found = await store.live(connection, caller.account or "", now, MAX_LISTED)
        idle_ms = int(self._settings.idle_s * 1000)
        return PlaybackPage(
            items=tuple(
                PlaybackView(
                    session_id=session.id,
                    asset_id=session.asset_id,
                    started_at=instant(session.created_ms),
                    last_seen_at=instant(seen),
                    expires_at=instant(session.expires_ms),
                )
                for session in found
                if now - (seen := self._gate.last_seen(session)) <= idle_ms
            )
        )

    async def end(self, caller: Caller, session_id: str) -> None:
        session = None
        if is_id(session_id, Prefix.PLAYBACK):
            async with self._database.read() as connection:
                session = await store.get(connection, session_id)
        if session is None or session.account is None or not caller.owns(session.account):
            raise NotFound("There is no such playback session.")
        await self._end(id=session_id)

    async def credential_ended(self, fact: CredentialEnded) -> None:
        """Listens: what was started under the credential ends."""
        await self._end(auth_session_id=fact.session_id)
        await self._end(auth_key_id=fact.key_id)

    async def asset_deleted(self, fact: AssetDeleted) -> None:
        """Listens: nobody watches a film that is gone."""
        await self._library.drop(fact.asset_id)
        await self._end(asset_id=fact.asset_id)
        self._gate.forget_asset(fact.asset_id)

    async def asset_changed(self, fact: AssetChanged) -> None:
        """Listens: the gate looks anew."""
        self._gate.forget_asset(fact.asset_id)

    async def policy_changed(self, fact: PolicyChanged) -> None:
        """Listens: whom the old version admitted is decided anew."""
        self._gate.forget_policy(fact.policy_id)

    async def session_ended(self, signal: SessionEnded) -> None:
        """Listens: another process ended it."""
        self._gate.forget(signal.session_id)

    async def write_heartbeats(self) -> None:
        """Periodic: when sessions were last seen."""
        await self._gate.write_heartbeats(min(30.0, self._settings.idle_s / 3))

    async def sweep(self) -> None:
        """Periodic: rows of sessions long over."""
        async with self._database.write() as tx:
            await store.delete_expired(tx, self._clock.now_ms() - KEPT_AFTER_END_S * 1000)

    async def health(self) -> Mapping[str, Check]:
        """How many sessions this process serves now."""
        live = self._gate.live(self._settings.idle_s)
        return {"": Check("ok", f"{live} sessions are watched", {"sessions": float(live)})}

    async def _end(self, **which: str | None) -> None:
        async with self._database.write() as tx:
            ended = await store.end(tx, self._clock.now_ms(), **which)
        await self._gate.tell_ended(ended)

    def _check_hint(self, caller: Caller, request: PlaybackRequest) -> None:
        if len(request.token_ids) > MAX_TOKENS or not all(_TOKEN_ID.match(token) for token in request.token_ids):
            raise ValidationFailed(f"token_ids must be at most {MAX_TOKENS} decimal numbers.").at("/token_ids")
        if request.wallet is None:
            return
        address = request.wallet.rpartition(":")[2].lower()
        if caller.account is None or caller.account.rpartition(":")[2].lower() != address:
            raise ValidationFailed("wallet must be one that you signed in with.").at("/wallet")

    def _new_session(self, caller: Caller, film: AssetAccess, request: PlaybackRequest) -> Session:
        now = self._clock.now_ms()
        life_s = max(self._settings.session_min_s, 3 * (film.duration or 0.0))
        life_s = min(life_s, self._settings.session_max_s)
        expires_ms = now + int(life_s * 1000)
        return Session(
            id=new_id(Prefix.PLAYBACK),
            asset_id=film.id,
            account=caller.account,
            role=caller.role,
            auth_session_id=caller.session_id,
            auth_key_id=caller.key_id,
            created_ms=now,
            last_seen_ms=now,
            expires_ms=expires_ms - expires_ms % 1000,
            token_ids=request.token_ids,
        )
