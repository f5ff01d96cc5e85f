"""How a need meets its provider: the object itself, or the object behind its wire form.

Both give the same promises: every call has a deadline, and only plain values cross. Whoever calls cannot tell them apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, get_type_hints

import msgspec

from streamgate.domain import deadline
from streamgate.domain.errors import ConfigurationError, Internal, StreamGateError


class Binding(Protocol):
    """Gives those who need ``kind`` something that behaves as ``provider``."""

    def __call__(self, kind: type, provider: object) -> object: ...


class Method(msgspec.Struct, frozen=True):
    """One method of a contract: its parameters in order, and the type of its result."""

    name: str
    parameters: tuple[tuple[str, Any], ...]
    result: Any


def methods_of(kind: type) -> tuple[Method, ...]:
    """The public coroutine methods of a contract, in the order they are written.

    Raises `ConfigurationError` for a method that is no coroutine function or lacks a type.
    """
    found = []
    for name, member in vars(kind).items():
        if name.startswith("_") or not callable(member):
            continue
        if not inspect.iscoroutinefunction(member):
            raise ConfigurationError(f"{kind.__qualname__}.{name} cannot be a contract method: it is not `async def`.")
        hints = get_type_hints(member)
        names = [p for p in inspect.signature(member).parameters if p != "self"]
        missing = [n for n in [*names, "return"] if n not in hints]
        if missing:
            raise ConfigurationError(f"{kind.__qualname__}.{name} lacks the type of {', '.join(missing)}.")
        found.append(Method(name, tuple((n, hints[n]) for n in names), hints["return"]))
    return tuple(found)


def check_contract(kind: type, provider: object | None = None) -> tuple[Method, ...]:
    """The methods of ``kind``, if all their values can cross a wire and ``provider`` has them all.

    Raises `ConfigurationError` naming the method and the value that cannot.
    """
    methods = methods_of(kind)
    for method in methods:
        for name, hint in [*method.parameters, ("result", method.result)]:
            reason = _not_serialisable(hint)
            if reason:
                raise ConfigurationError(
                    f"Contract {kind.__qualname__} cannot be serialised: {name} of {method.name}() {reason}."
                )
        if provider is not None and not inspect.iscoroutinefunction(getattr(provider, method.name, None)):
            raise ConfigurationError(
                f"{type(provider).__qualname__} does not implement {kind.__qualname__}.{method.name}()."
            )
    return methods


def _not_serialisable(hint: Any) -> str | None:
    try:
        info = msgspec.inspect.type_info(hint)
    except (TypeError, NameError) as error:
        return f"has a type that has no wire form ({error})"
    return _custom_inside(info, set())


def _custom_inside(info: Any, seen: set[int]) -> str | None:
    if isinstance(info, msgspec.inspect.CustomType):
        return f"holds {info.cls.__qualname__}, which is no plain value"
    if id(info) in seen or not isinstance(info, msgspec.inspect.Type):
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for inner in value if isinstance(value, tuple) else (value,):
            nested = inner.type if isinstance(inner, msgspec.inspect.Field) else inner
            reason = _custom_inside(nested, seen)
            if reason:
                return reason
    return None


class DirectBinding:
    """The provider itself, each call under a deadline."""

    def __call__(self, kind: type, provider: object) -> object:
        return _proxy(kind, provider, lambda _, call: call)


class LoopbackBinding:
    """The provider behind its wire form: arguments, results and errors are serialised and read back.

    Shared mutable values and things that have no wire form fail here, in one process, instead of between two.
    """

    def __call__(self, kind: type, provider: object) -> object:
        return _proxy(kind, provider, _over_loopback)


Call = Callable[..., Any]


def remote(kind: type, calling: Callable[[Method], Call]) -> object:
    """Behaves as ``kind``, each call under a deadline and made by what ``calling`` gives for the method."""
    return _bound(kind, check_contract(kind), calling)


def _proxy(kind: type, provider: object, wrap: Callable[[Method, Call], Call]) -> object:
    methods = check_contract(kind, provider)
    return _bound(kind, methods, lambda method: wrap(method, getattr(provider, method.name)))


def _bound(kind: type, methods: tuple[Method, ...], calling: Callable[[Method], Call]) -> object:
    members: dict[str, Any] = {"__slots__": (), "__doc__": f"{kind.__qualname__}, bound."}
    for method in methods:
        members[method.name] = staticmethod(_timed(method, calling(method)))
    return type(f"Bound{kind.__name__}", (), members)()


def _timed(method: Method, call: Call) -> Call:
    names = [name for name, _ in method.parameters]

    async def timed(*positional: Any, **named: Any) -> Any:
        arguments = dict(zip(names, positional, strict=False)) | named
        if len(positional) > len(names) or arguments.keys() != set(names):
            raise TypeError(f"{method.name}() takes {', '.join(names)}")
        left = deadline.remaining_s()
        async with deadline.within(deadline.DEFAULT_S if left is None else left):
            return await call(**arguments)

    timed.__name__ = method.name
    return timed


def _over_loopback(method: Method, call: Call) -> Call:
    arguments_form = msgspec.defstruct(f"{method.name}_arguments", list(method.parameters))
    encode = msgspec.msgpack.Encoder().encode
    arguments_back = msgspec.msgpack.Decoder(arguments_form).decode
    result_back = msgspec.msgpack.Decoder(method.result).decode

    async def over(**arguments: Any) -> Any:
        there = arguments_back(encode(arguments_form(**arguments)))
        try:
            result = await call(**{name: getattr(there, name) for name, _ in method.parameters})
        except StreamGateError as error:
            raise StreamGateError.from_wire(msgspec.msgpack.decode(encode(error.to_wire()))) from None
        try:
            return result_back(encode(result))
        except (TypeError, msgspec.ValidationError) as error:
            raise Internal(f"{method.name} answered with a value that is not of its type: {error}") from error

    return over
