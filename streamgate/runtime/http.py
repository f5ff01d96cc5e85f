"""The API of a process: one Litestar app over the controllers of its plugins, closed by default.

* `least(role)`: ``@get("/api/v1/assets", opt=least(Role.ANONYMOUS))`` says who may call a route. A route without it stops
  the process at start. A caller below the role gets 401 when nobody is signed in, else 403.
* `realm(name)`: ``opt = realm("assets")`` on a controller says which part of the API it is, so that an API key narrowed to
  ``assets:read`` opens its GET routes and no others. A route of no realm is closed to narrowed keys unless it is public.
* A handler takes the verified caller by a parameter ``caller: Caller``, a body by ``data: SomeStruct`` (msgspec).
* Errors of the tree in `domain.errors` may be raised anywhere; they become ``application/problem+json``, and so does
  everything that the framework itself refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import structlog
from litestar import Litestar, Request, Response
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException, ImproperlyConfiguredException, ValidationException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.routes import HTTPRoute

from streamgate.domain.errors import (
    ConfigurationError,
    FieldError,
    Forbidden,
    Internal,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    StreamGateError,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
)
from streamgate.domain.identity import ANONYMOUS, Caller, Role
from streamgate.runtime import problems
from streamgate.runtime.problems import send_problem

__all__ = ["Authenticates", "api", "least", "openapi", "send_problem"]

MAX_BODY = 1 << 20
"""Largest JSON body, in bytes; routes that stream set their own."""


class Authenticates(Protocol):
    """Turns the headers of a request into its verified caller."""

    async def caller(self, authorization: str | None) -> Caller:
        """`ANONYMOUS` without the header; `Unauthenticated` for anything that is no valid credential."""
        ...


def least(role: Role, *, reads: bool = False) -> dict[str, Any]:
    """The ``opt`` of a route handler that is open to callers of at least this role. ``reads``: a POST that changes nothing."""
    return {"least": role, "reads": reads}


def realm(name: str) -> dict[str, Any]:
    """The ``opt`` of a controller: the part of the API that the scopes of its routes name."""
    return {"realm": name}


def scope_of(handler: BaseRouteHandler, method: str) -> str | None:
    """The scope that a narrowed key needs for a route; None when it is of no realm."""
    name = handler.opt.get("realm")
    reads = method in {"GET", "HEAD"} or handler.opt.get("reads", False)
    return None if name is None else f"{name}:{'read' if reads else 'write'}"


def api(routes: Sequence[Any], authenticator: Authenticates) -> Litestar:
    """The app over these controllers. `ConfigurationError` when two routes clash or one does not say who may call it."""
    app = _build(routes, authenticator, None)
    _refuse_undeclared(app)
    return app


def openapi(routes: Sequence[Any], authenticator: Authenticates, *, title: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the app over these controllers."""
    config = OpenAPIConfig(
        title=title,
        version=version,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT or API key")}
        ),
    )
    app = _build(routes, authenticator, config)
    document = dict(app.openapi_schema.to_schema())
    rules = {
        (route.path_format, method.lower()): (handler.opt.get("least", Role.ANONYMOUS), scope_of(handler, method))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
    }
    return _with_problems(document, rules)


def _with_problems(document: dict[str, Any], rules: dict[tuple[str, str], tuple[Role, str | None]]) -> dict[str, Any]:
    """Say of every operation what it answers when it does not succeed, and who may call it."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = {
        "type": "object",
        "title": "Problem",
        "description": "A problem document (RFC 9457); further members explain some codes.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "examples": [problems.problem_type("not_found")]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(problems.STATUS)},
            "request_id": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                },
            },
        },
    }
    problem = {
        "description": "Anything but success: a problem document.",
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].pop("400", None)
                operation["responses"]["default"] = problem
                role, scope = rules.get((path, method), (Role.ANONYMOUS, None))
                operation["security"] = [{"bearer": []}] if role > Role.ANONYMOUS else [{}, {"bearer": []}]
                operation["x-least-role"] = role.name.lower()
                if scope is not None:
                    operation["x-scope"] = scope
    return document


def _build(routes: Sequence[Any], authenticator: Authenticates, schema: OpenAPIConfig | None) -> Litestar:

    async def authorise(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        required: Role | None = handler.opt.get("least")
        if required is None:
            connection.state.caller = ANONYMOUS
            return
        # What stood before this app in the same process may have verified the credential already.
        caller: Caller | None = connection.scope["state"].get("caller")
        if caller is None:
            caller = await authenticator.caller(connection.headers.get("authorization"))
        caller.require(required)
        scope = scope_of(handler, connection.scope["method"])  # type: ignore[typeddict-item]
        if required > Role.ANONYMOUS or scope is not None:
            caller.require_scope(scope)
        connection.state.caller = caller

    try:
        return Litestar(
            route_handlers=list(routes),
            guards=[authorise],
            dependencies={"caller": Provide(_caller, sync_to_thread=False)},
            exception_handlers={Exception: _answer},
            request_max_body_size=MAX_BODY,
            openapi_config=schema,
            logging_config=None,
            debug=False,
        )
    except ImproperlyConfiguredException as error:
        raise ConfigurationError(f"The routes of the plugins do not fit together: {error.detail or error}.") from error


def _caller(request: Request[Any, Any, Any]) -> Caller:
    found: Caller = request.state.caller
    return found


def _refuse_undeclared(app: Litestar) -> None:
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            automatic = isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}
            if not automatic and "least" not in handler.opt:
                raise ConfigurationError(f"The route {route.path} does not say who may call it (opt=least(…)).")


def _answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    known = _known(request, error)
    status, body = problems.document(known, str(request.scope.get("state", {}).get("request_id", "")))
    sent = {
        name.decode(): value.decode() for name, value in problems.headers(known, len(body)) if name != b"content-length"
    }
    media_type = sent.pop("content-type")
    if isinstance(error, HTTPException) and error.headers:
        sent.update({name.lower(): value for name, value in error.headers.items() if name.lower() == "allow"})
    return Response(body, status_code=status, headers=sent, media_type=media_type)


_BY_STATUS: dict[int, tuple[type[StreamGateError], str]] = {
    401: (Unauthenticated, "Sign in first, or send an API key."),
    403: (Forbidden, "This is not allowed."),
    404: (NotFound, "There is nothing at this address."),
    405: (MethodNotAllowed, "This address does not take that method."),
    413: (PayloadTooLarge, "The request's body is too large."),
    415: (UnsupportedMediaType, "The request's Content-Type is not one that this address takes."),
    429: (RateLimited, "Too many requests."),
    503: (Unavailable, "The service cannot answer now."),
}


def _known(request: Request[Any, Any, Any], error: Exception) -> StreamGateError:
    """The error of the tree that stands for whatever was raised; what nobody expected is logged with its trace."""
    if isinstance(error, StreamGateError):
        if isinstance(error, Internal):
            structlog.get_logger().error("internal error", path=request.scope["path"], exc_info=error)
        return error
    if isinstance(error, UnicodeDecodeError):
        return ValidationFailed("The request's text is not UTF-8.")
    if isinstance(error, RecursionError):
        return ValidationFailed("The request is nested too deeply.")
    if isinstance(error, ValidationException):
        return ValidationFailed("The request is not as it must be; see errors.", errors=_pointers(error))
    if isinstance(error, HTTPException):
        if error.status_code in _BY_STATUS:
            kind, detail = _BY_STATUS[error.status_code]
            return kind(detail)
        if error.status_code < 500:
            return ValidationFailed(f"The request cannot be understood: {error.detail or 'malformed'}.")
    structlog.get_logger().error("unexpected error", path=request.scope["path"], exc_info=error)
    return Internal("Something went wrong on our side; the request id finds it in the log.")


def _pointers(error: ValidationException) -> tuple[FieldError, ...]:
    """Litestar's findings as JSON pointers: ``title`` in the body is ``/title``, a query parameter ``?limit``."""
    found = []
    for item in error.extra if isinstance(error.extra, list) else ():
        key = str(item.get("key", "")).removeprefix("data").lstrip(".")
        source = str(item.get("source", "body")).rsplit(".", 1)[-1].lower()
        where = f"?{key}" if source == "query" else "/" + key.replace(".", "/") if key else ""
        found.append(FieldError(where, str(item.get("message", "is not as it must be"))))
    return tuple(found)
