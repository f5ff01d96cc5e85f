"""The protobuf form of contracts, as plain values: messages, their fields and numbers. Needs no protobuf library.

    text, Literal, StrEnum   string             tuple[X, ...]         repeated X
    int, IntEnum             int64, enum        dict[str, X]          map<string, X>
    float, bool, bytes       double …           datetime              google.protobuf.Timestamp
    Struct                   message            Any, dict[str, Any]   string that holds JSON (RFC 8259)
    X | None, X with default optional X         tuple[X, X]           message XPair
    tuple[X, ...] | None     optional XList     X | UNSET | None      optional NullableX

A method is an rpc of ``<Contract><Method>Request``, its parameters, to ``<Contract><Method>Response``, whose one field is
``result``. A field that is left out has its default; one that has none is null, or else zero or empty as protobuf has it. The
package is ``streamgate.<service>.v1``, and ``streamgate.domain.v1`` for what all contracts share.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Literal

import msgspec

from streamgate.contracts.declare import declaration, open_to
from streamgate.domain.errors import ConfigurationError
from streamgate.kernel.binding import Method, methods_of

Numbers = Mapping[str, Mapping[str, int]]
"""Full name of a message → field → number."""

Card = Literal["one", "optional", "many", "map"]
Box = Literal["list", "pair", "nullable"]

SCALARS: dict[type, str] = {str: "string", int: "int64", float: "double", bool: "bool", bytes: "bytes"}
TIMESTAMP = "google.protobuf.Timestamp"


@dataclass(frozen=True)
class Value:
    """One value: its protobuf type (a scalar's or a full name), what it is in Python, and which texts are allowed."""

    proto: str
    python: Any
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """A field; ``box`` says which message of this module's making holds the value."""

    name: str
    value: Value
    card: Card = "one"
    box: Box | None = None


@dataclass(frozen=True)
class Message:
    """``python``: the Struct that it carries; None for a box."""

    name: str
    fields: tuple[Field, ...]
    python: type | None
    doc: str = ""


@dataclass(frozen=True)
class Rpc:
    """A method: ``name`` in CamelCase; ``request`` and ``response`` are Structs made for it."""

    name: str
    method: Method
    request: type
    response: type
    function: Any


@dataclass
class File:
    """One .proto file."""

    package: str
    doc: str = ""
    messages: dict[str, Message] = field(default_factory=dict)
    enums: dict[str, type[enum.IntEnum]] = field(default_factory=dict)
    services: dict[str, tuple[type, tuple[Rpc, ...]]] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)


class Schema:
    """Gathers the files that contracts need. Raises `ConfigurationError` for a type that has no form here.

    ``open_only``: contracts that are taken without the methods that only services may call.
    """

    def __init__(self, open_only: Collection[type] = ()) -> None:
        self._open_only = open_only
        self.files: dict[str, File] = {}
        self._names: dict[type, str] = {}

    def add(self, kind: type) -> tuple[str, tuple[Rpc, ...]]:
        """The full name of the contract's service, and its methods."""
        key = file_of(kind)
        file = self._file(key)
        if kind.__name__ not in file.services:
            rpcs = []
            for method in methods_of(kind):
                if kind in self._open_only and open_to(getattr(kind, method.name)) is None:
                    continue
                name = camel(method.name)
                prefix = f"{kind.__name__}{name}"
                request = msgspec.defstruct(f"{prefix}Request", list(method.parameters), module=kind.__module__)
                returned = [] if method.result in {None, NoneType} else [("result", method.result)]
                response = msgspec.defstruct(f"{prefix}Response", returned, module=kind.__module__)
                self.message(request, key)
                self.message(response, key)
                rpcs.append(Rpc(name, method, request, response, getattr(kind, method.name)))
            file.services[kind.__name__] = (kind, tuple(rpcs))
        return f"{file.package}.{kind.__name__}", file.services[kind.__name__][1]

    def message(self, kind: type, key: str | None = None) -> str:
        """The full name of the message that carries a Struct."""
        if kind in self._names:
            return self._names[kind]
        key = key or file_of(kind)
        file = self._file(key)
        name = self._names[kind] = f"{file.package}.{kind.__name__}"
        if kind.__name__ in file.messages:
            raise ConfigurationError(f"Two messages are named {name}.")
        file.messages[kind.__name__] = Message(name, (), kind)
        fields = tuple(self._field(key, item) for item in msgspec.structs.fields(kind))
        doc = kind.__doc__ or ""
        file.messages[kind.__name__] = Message(name, fields, kind, doc)
        return name

    def find(self, name: str) -> Message:
        """The message of that full name."""
        package, _, short = name.rpartition(".")
        return next(file.messages[short] for file in self.files.values() if file.package == package)

    def _file(self, key: str) -> File:
        return self.files.setdefault(key, File(f"streamgate.{key}.v1"))

    def _field(self, key: str, item: msgspec.structs.FieldInfo) -> Field:
        hint, has_default = item.type, not item.required
        members = list(typing.get_args(hint)) if _is_union(hint) else [hint]
        unset, null = msgspec.UnsetType in members, NoneType in members
        if null and has_default and item.default not in {None, msgspec.UNSET}:
            raise ConfigurationError(f"{item.name} may be None and has another default: that has no wire form.")
        rest = [member for member in members if member not in {NoneType, msgspec.UnsetType}]
        if len(rest) != 1:
            raise ConfigurationError(f"{item.name} is a union of several types: that has no wire form.")
        origin, arguments = typing.get_origin(rest[0]), typing.get_args(rest[0])
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            value = self._value(key, arguments[0])
            if not null:
                return Field(item.name, value, "many")
            return Field(item.name, self._boxed(key, value, "list"), "optional", "list")
        if origin is tuple:
            return Field(item.name, self._boxed(key, self._value(key, arguments[0]), "pair"), "optional", "pair")
        if origin is dict and arguments[1] is not Any:
            return Field(item.name, self._value(key, arguments[1]), "map")
        value = self._value(key, rest[0])
        if unset and null:
            return Field(item.name, self._boxed(key, value, "nullable"), "optional", "nullable")
        return Field(item.name, value, "optional" if null or unset or has_default else "one")

    def _value(self, key: str, hint: Any) -> Value:
        origin = typing.get_origin(hint)
        if hint is Any or origin is dict:
            return Value("string", Any)
        if origin is Literal:
            return Value("string", str, typing.get_args(hint))
        if hint in SCALARS:
            return Value(SCALARS[hint], hint)
        if hint is datetime:
            self._file(key).imports.add("google/protobuf/timestamp.proto")
            return Value(TIMESTAMP, datetime)
        if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
            return Value("string", hint, tuple(str(member) for member in hint))
        if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
            return Value(self._enum(key, hint), hint)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            name = self.message(hint)
            self._import(key, file_of(hint))
            return Value(name, hint)
        raise ConfigurationError(f"{hint!r} has no wire form.")

    def _boxed(self, key: str, value: Value, box: Box) -> Value:
        short = camel(value.proto.rpartition(".")[2])
        name = {"list": f"{short}List", "pair": f"{short}Pair", "nullable": f"Nullable{short}"}[box]
        inner = {
            "list": (Field("items", value, "many"),),
            "pair": (Field("first", value), Field("second", value)),
            "nullable": (Field("value", value, "optional"),),
        }[box]
        file = self._file(key)
        full = f"{file.package}.{name}"
        file.messages.setdefault(name, Message(full, inner, None))
        return Value(full, value.python, value.allowed)

    def _enum(self, key: str, kind: type[enum.IntEnum]) -> str:
        home = file_of(kind)
        file = self._file(home)
        file.enums[kind.__name__] = kind
        self._import(key, home)
        return f"{file.package}.{kind.__name__}"

    def _import(self, key: str, other: str) -> None:
        if other != key:
            self._file(key).imports.add(f"{other}.proto")


def numbered(message: Message, locked: Numbers) -> dict[str, int]:
    """Field → number: as locked, or in the order of writing for contracts that are not the product's own.

    `ConfigurationError` for a field that the lock does not have.
    """
    known = locked.get(message.name)
    if known is None and message.python is not None and not message.python.__module__.startswith("streamgate."):
        return {item.name: number for number, item in enumerate(message.fields, 1)}
    missing = [item.name for item in message.fields if item.name not in (known or {})]
    if missing:
        raise ConfigurationError(f"{message.name}.{missing[0]} has no field number; run: make proto")
    return {item.name: (known or {})[item.name] for item in message.fields}


def file_of(kind: type) -> str:
    """The file (without ``.proto``) that a contract, Struct or enum belongs to."""
    parts = kind.__module__.split(".")
    if parts[:2] == ["streamgate", "contracts"]:
        return parts[2]
    if parts[:2] == ["streamgate", "domain"]:
        return "domain"
    if hasattr(kind, "__contract__"):
        return declaration(kind).service.replace("-", "_")
    return "_".join(parts)


def camel(name: str) -> str:
    """``sign_in`` → ``SignIn``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, UnionType}
