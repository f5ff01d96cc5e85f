"""Which service a path belongs to, by the route templates that contracts declare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from streamgate.contracts.declare import REST, Declaration


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


def _pattern(template: str) -> str:
    mount = template.endswith(REST)
    kept = template.removesuffix(REST) if mount else template
    parts = ("[^/]+" if part.startswith("{") else re.escape(part) for part in kept.split("/"))
    return "/".join(parts) + ("/.*" if mount else "/?")
