"""Who may make a call: a service with its token, or a person whose role and scopes the method is open to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamgate.contracts.declare import open_to, scope_of
from streamgate.domain.errors import Forbidden, Unauthenticated
from streamgate.domain.identity import Caller, Role
from streamgate.runtime.rpc.schema import Rpc
from streamgate.runtime.rpc.tokens import ServiceVerifier

Metadata = Sequence[tuple[str, str]]


class Authenticates(Protocol):
    """Verifies a person's credential."""

    async def caller(self, authorization: str | None) -> Caller: ...


@dataclass(frozen=True, slots=True)
class Arriving:
    """A call before it is let in. ``address``: the client's; None where it is not known. ``authorization``: as it was sent."""

    rpc: Rpc
    authorization: str | None
    address: str | None


class Door(Protocol):
    """Stands before calls that are passed on to another service."""

    async def admit(self, call: Arriving) -> Metadata:
        """Return, with metadata for the answer, when the call may pass; raise what to answer else."""
        ...


@dataclass(frozen=True)
class Guard:
    """Decides who may make a call that is answered here."""

    verifier: ServiceVerifier
    authenticator: Authenticates

    async def admit(self, rpc: Rpc, authorization: str | None) -> Caller | None:
        """The person who makes the call; None when a service does, speaking for whom it says. Raises what to answer else."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.verifier.caller(token.strip()) is not None:
            return None
        person = await self.authenticator.caller(authorization)
        permit(rpc, person, known=authorization is not None)
        return person


def permit(rpc: Rpc, person: Caller, *, known: bool) -> None:
    """Return when the method is open to the person; else `Forbidden`, or `Unauthenticated` where no credential was sent.

    A narrowed key needs the method's scope, by the rules that hold for routes (`runtime.http`).
    """
    role = open_to(rpc.function)
    if role is None:
        if not known:
            raise Unauthenticated("Only services may call this, with a service token.")
        raise Forbidden("Only services may call this.")
    person.require(role)
    scope = scope_of(rpc.function)
    if role > Role.ANONYMOUS or scope is not None:
        person.require_scope(scope)
