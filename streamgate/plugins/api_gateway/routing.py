"""Which service a path belongs to, by the route templates that contracts declare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from streamgate.contracts.declare import REST, Declaration
from streamgate.domain.errors import ConfigurationError

OWN = ("/health", "/health/{path}", "/metrics", "/openapi.json", "/docs")
"""What the gateway answers itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """A template and the service that answers it."""

    template: str
    service: str


class Routes:
    """The templates of these declarations. A written segment wins over a parameter; a trailing slash changes nothing."""

    def __init__(self, declarations: Iterable[Declaration]) -> None:
        self._routes = sorted(
            (Route(template, found.service) for found in declarations for template in found.routes),
            key=lambda route: [part.startswith("{") for part in route.template.split("/")],
        )
        either = "|".join(f"(?P<r{number}>{_pattern(route.template)})" for number, route in enumerate(self._routes))
        self._any = re.compile(either or r"(?!)", re.DOTALL)

    def of(self, path: str) -> Route | None:
        """The route of a decoded path; None when no service has declared it."""
        found = self._any.fullmatch(path)
        return None if found is None or found.lastgroup is None else self._routes[int(found.lastgroup[1:])]

    def __len__(self) -> int:
        return len(self._routes)


def refuse_overlaps(ours: Iterable[Declaration], others: Iterable[Declaration]) -> None:
    """`ConfigurationError` when a template of ``others`` covers a path that is the gateway's, ours, or a third one's."""
    taken = [(template, "api-gateway") for template in OWN]
    taken += [(template, found.service) for found in ours for template in found.routes]
    for found in others:
        for template in found.routes:
            if not template.startswith("/"):
                raise ConfigurationError(f"The route {template} of {found.service} does not begin with a slash.")
            for other, owner in taken:
                if owner != found.service and _overlap(template, other):
                    raise ConfigurationError(
                        f"The route {template} of {found.service} covers what {other} of {owner} answers."
                    )
        taken += [(template, found.service) for template in found.routes]


def _overlap(one: str, other: str) -> bool:
    """Whether there is a path that both templates match."""
    parts = [template.removesuffix(REST).rstrip("/").split("/") for template in (one, other)]
    mounts = [template.endswith(REST) for template in (one, other)]
    if not all(a == b or a.startswith("{") or b.startswith("{") for a, b in zip(*parts, strict=False)):
        return False
    if len(parts[0]) == len(parts[1]):
        return True
    return mounts[0] if len(parts[0]) < len(parts[1]) else mounts[1]


def _pattern(template: str) -> str:
    mount = template.endswith(REST)
    kept = template.removesuffix(REST) if mount else template
    parts = ("[^/]+" if part.startswith("{") else re.escape(part) for part in kept.split("/"))
    return "/".join(parts) + ("/.*" if mount else "/?")
