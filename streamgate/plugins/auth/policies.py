"""Policies as they are kept: immutable versions, owned, read by the server alone."""

from __future__ import annotations

from streamgate.contracts.auth import PolicyChanged, PolicyDraft, PolicyPage, PolicyView
from streamgate.contracts.metadata import PolicySummary
from streamgate.domain import policy as rules
from streamgate.domain.clock import Clock, instant
from streamgate.domain.errors import Conflict, NotFound, ValidationFailed
from streamgate.domain.identity import Caller, Prefix, Role, is_id, new_id
from streamgate.plugins.auth import store
from streamgate.plugins.auth.store import StoredPolicy
from streamgate.runtime.database import Database
from streamgate.runtime.outbox import Outbox

MAX_PAGE = 100


class PolicyShelf:
    """Stores, lists and replaces policies."""

    def __init__(self, *, database: Database, outbox: Outbox, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    async def create(self, caller: Caller, draft: PolicyDraft) -> PolicyView:
        """See `Access.create_policy`."""
        caller.require(Role.CREATOR)
        _check(draft)
        stored = self._version(new_id(Prefix.POLICY), 1, caller.account or "", draft)
        async with self._database.write() as tx:
            await store.add_policy(tx, stored)
        return _view(stored)

    async def list(self, caller: Caller, limit: int, cursor: str | None) -> PolicyPage:
        """See `Access.policies`."""
        caller.require(Role.CREATOR)
        if not 1 <= limit <= MAX_PAGE:
            raise ValidationFailed(f"limit must be from 1 to {MAX_PAGE}.").at("?limit")
        if cursor is not None and not is_id(cursor, Prefix.POLICY):
            raise ValidationFailed("cursor must be what the page before named as next_cursor.").at("?cursor")
        owner = None if caller.role is Role.ADMIN else caller.account or ""
        async with self._database.read() as connection:
            found = await store.find_policies(connection, owner=owner, before_id=cursor, limit=limit + 1)
        page = found[:limit]
        return PolicyPage(tuple(_view(p) for p in page), page[-1].id if len(found) > limit else None)

    async def get(self, caller: Caller, policy_id: str) -> PolicyView:
        """See `Access.policy`."""
        return _view(await self._owned(caller, policy_id))

    async def replace(self, caller: Caller, policy_id: str, draft: PolicyDraft) -> PolicyView:
        """See `Access.replace_policy`."""
        caller.require(Role.CREATOR)
        old = await self._owned(caller, policy_id)
        _check(draft)
        stored = self._version(policy_id, old.version + 1, old.owner, draft)
        async with self._database.write() as tx:
            newest = await store.get_policy(tx, policy_id)
            if newest is None or newest.version != old.version:
                raise Conflict("The policy was changed by somebody else meanwhile. Read it again.")
            await store.add_policy(tx, stored)
            await self._outbox.announce(tx, PolicyChanged(policy_id=policy_id, version=stored.version))
        return _view(stored)

    async def attachable(self, caller: Caller, policy_id: str) -> PolicySummary:
        """See `Access.attachable`."""
        return _summary(await self._owned(caller, policy_id))

    async def summaries(self, policy_ids: tuple[str, ...]) -> tuple[PolicySummary, ...]:
        """See `Access.summaries`."""
        async with self._database.read() as connection:
            found = await store.find_policies(connection, ids=policy_ids, limit=max(1, len(policy_ids)))
        return tuple(_summary(stored) for stored in found)

    async def newest(self, policy_id: str) -> StoredPolicy | None:
        """The newest version, whoever owns it; for the gate."""
        async with self._database.read() as connection:
            return await store.get_policy(connection, policy_id)

    async def owned_document(self, caller: Caller, policy_id: str) -> StoredPolicy:
        """The newest version, if the caller owns it; else `NotFound`."""
        return await self._owned(caller, policy_id)

    async def _owned(self, caller: Caller, policy_id: str) -> StoredPolicy:
        stored = await self.newest(policy_id) if is_id(policy_id, Prefix.POLICY) else None
        if stored is None or not caller.owns(stored.owner):
            raise NotFound("There is no such policy.")
        return stored

    def _version(self, policy_id: str, version: int, owner: str, draft: PolicyDraft) -> StoredPolicy:
        return StoredPolicy(policy_id, version, owner, draft.name.strip(), draft.document, self._clock.now_ms())


def _check(draft: PolicyDraft) -> None:
    if not 1 <= len(draft.name.strip()) <= 200:
        raise ValidationFailed("name must have 1 to 200 characters.").at("/name")
    rules.parse(draft.document, "/document")


def _view(stored: StoredPolicy) -> PolicyView:
    return PolicyView(
        id=stored.id,
        version=stored.version,
        name=stored.name,
        document=stored.document,
        created_at=instant(stored.created_ms),
        warnings=rules.parse(stored.document).warnings(),
    )


def _summary(stored: StoredPolicy) -> PolicySummary:
    return PolicySummary(stored.id, stored.version, stored.name)
