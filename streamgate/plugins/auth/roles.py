"""Which role an account has: by the settings alone."""

from __future__ import annotations

from streamgate.domain.identity import ADMIN_ACCOUNT, Role
from streamgate.plugins.auth.accounts import ANYBODY
from streamgate.plugins.auth.settings import AuthSettings


class Roles:
    """Looks accounts up in ``auth.admins`` and ``auth.creators``."""

    def __init__(self, settings: AuthSettings) -> None:
        self._admins = frozenset(settings.admins)
        self._creators = frozenset(settings.creators)

    def of(self, account: str) -> Role:
        """The role of a signed-in account."""
        wallet = account.rpartition(":")[2].lower()
        if account == ADMIN_ACCOUNT or wallet in self._admins:
            return Role.ADMIN
        if ANYBODY in self._creators or wallet in self._creators:
            return Role.CREATOR
        return Role.VIEWER
