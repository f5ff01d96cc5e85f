"""API keys, and the administrator's."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from streamgate.contracts.auth import ApiKey, CredentialEnded, KeyPage, KeyRequest
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import ConfigurationError, Forbidden, NotFound, Unauthenticated, ValidationFailed
from streamgate.domain.identity import ADMIN_ACCOUNT, SCOPES, Caller, Prefix, Role, is_id, new_id
from streamgate.plugins.auth import store
from streamgate.plugins.auth.roles import Roles
from streamgate.plugins.auth.store import StoredKey
from streamgate.plugins.auth.tokens import hashed
from streamgate.runtime.database import Database
from streamgate.runtime.outbox import Outbox
from streamgate.runtime.secrets import read_secret, secret_file

KEY_PREFIX = "sg_key_"
ADMIN_PREFIX = "sg_admin_"
SHOWN = len(KEY_PREFIX) + 4
MAX_LISTED = 1000
LEAST_ADMIN_KEY = 24

REFUSED = "This API key is not valid: it was ended, has expired, or never was one."


def load_admin_key(configured: Path | None, data_dir: Path) -> str:
    """The administrator key of the configured file, or of the data directory, made at first start."""
    path = configured or data_dir / "admin.key"
    try:
        content = secret_file(path, _fresh) if configured is None else read_secret(path)
    except FileNotFoundError:
        raise ConfigurationError(f"The administrator key file {path} does not exist.") from None
    key = content.decode("ascii", "replace").strip()
    if len(key) < LEAST_ADMIN_KEY or not key.startswith("sg_"):
        raise ConfigurationError(
            f"{path} holds no administrator key: it begins with sg_ and has at least {LEAST_ADMIN_KEY} characters."
        )
    return key


def _fresh() -> bytes:
    return f"{ADMIN_PREFIX}{secrets.token_urlsafe(32)}\n".encode()


class KeyRing:
    """API keys in SQL, by hash; the administrator's from its file."""

    def __init__(self, *, database: Database, outbox: Outbox, roles: Roles, clock: Clock, admin_key: str) -> None:
        self._database = database
        self._outbox = outbox
        self._roles = roles
        self._clock = clock
        self._admin_hash = hashed(admin_key)

    async def create(self, caller: Caller, request: KeyRequest) -> ApiKey:
        """See `Access.create_key`."""
        caller.require(Role.CREATOR)
        if not 1 <= len(request.name.strip()) <= 200:
            raise ValidationFailed("name must have 1 to 200 characters.").at("/name")
        if request.expires_in is not None and not 60 <= request.expires_in <= 10 * 365 * 24 * 3600:
            raise ValidationFailed("expires_in must be from 60 seconds to ten years.").at("/expires_in")
        if Role[request.role.upper()] > caller.role:
            raise Forbidden(f"A key cannot have the role {request.role} when you have not.")
        scopes = _scopes(caller, request.scopes)
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now_ms()
        stored = StoredKey(
            id=new_id(Prefix.KEY),
            account=caller.account or "",
            role=request.role,
            name=request.name.strip(),
            prefix=key[:SHOWN],
            created_ms=now,
            expires_ms=None if request.expires_in is None else now + request.expires_in * 1000,
            ended_ms=None,
            scopes=scopes,
        )
        async with self._database.write() as tx:
            await store.add_key(tx, stored, hashed(key))
        return _view(stored, key)

    async def list(self, caller: Caller) -> KeyPage:
        """See `Access.keys`."""
        caller.require(Role.CREATOR)
        account = None if caller.role is Role.ADMIN else caller.account or ""
        async with self._database.read() as connection:
            found = await store.live_keys(connection, account, MAX_LISTED)
        return KeyPage(tuple(_view(stored, None) for stored in found))

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """See `Access.revoke_key`."""
        caller.require(Role.CREATOR)
        stored = None
        if is_id(key_id, Prefix.KEY):
            async with self._database.read() as connection:
                stored = await store.get_key(connection, key_id)
        if stored is None or not caller.owns(stored.account):
            raise NotFound("There is no such key.")
        async with self._database.write() as tx:
            if await store.end_key(tx, key_id, self._clock.now_ms()):
                await self._outbox.announce(tx, CredentialEnded(key_id=key_id))

    async def resolve(self, key: str) -> Caller:
        """See `Access.resolve_key`."""
        digest = hashed(key)
        if hmac.compare_digest(digest, self._admin_hash):
            return Caller(account=ADMIN_ACCOUNT, role=Role.ADMIN)
        async with self._database.read() as connection:
            stored = await store.find_key(connection, digest)
        if stored is None or not stored.live(self._clock.now_ms()):
            raise Unauthenticated(REFUSED)
        role = min(Role[stored.role.upper()], self._roles.of(stored.account))
        return Caller(account=stored.account, role=role, key_id=stored.id, scopes=stored.scopes)

    async def live(self, key_id: str) -> bool:
        """Whether the key is neither ended nor over."""
        async with self._database.read() as connection:
            stored = await store.get_key(connection, key_id)
        return stored is not None and stored.live(self._clock.now_ms())


def _scopes(caller: Caller, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    """What a new key is narrowed to, in the order of `SCOPES`."""
    if asked is not None and not asked:
        raise ValidationFailed("scopes must name at least one, or be left out.").at("/scopes")
    wrong = [scope for scope in asked or () if scope not in SCOPES]
    if wrong:
        raise ValidationFailed(f"{wrong[0][:40]} is no scope; there are: {', '.join(SCOPES)}.").at("/scopes")
    if caller.scopes and not set(asked or SCOPES) <= set(caller.scopes):
        raise Forbidden(f"This key is narrowed to {', '.join(caller.scopes)}, and so must be every key that it makes.")
    return tuple(scope for scope in SCOPES if scope in (asked or ()))


def _view(stored: StoredKey, key: str | None) -> ApiKey:
    return ApiKey(
        id=stored.id,
        name=stored.name,
        account=stored.account,
        role=stored.role,
        prefix=stored.prefix,
        created_at=instant(stored.created_ms),
        scopes=stored.scopes or None,
        expires_at=None if stored.expires_ms is None else instant(stored.expires_ms),
        key=key,
    )
