"""Values to protobuf bytes and back, over message classes made from the contracts as they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

import streamgate.contracts
from streamgate.domain.errors import Internal, StreamGateError, ValidationFailed
from streamgate.runtime.rpc import schema as forms
from streamgate.runtime.rpc.problem import Problem, error_of, problem_of
from streamgate.runtime.rpc.schema import Field, File, Message, Schema

NUMBERS = Path(streamgate.contracts.__file__).parent / "proto" / "numbers.json"
STATUS_DETAILS = "grpc-status-details-bin"

Descriptor_ = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "string": Descriptor_.TYPE_STRING,
    "int64": Descriptor_.TYPE_INT64,
    "double": Descriptor_.TYPE_DOUBLE,
    "bool": Descriptor_.TYPE_BOOL,
    "bytes": Descriptor_.TYPE_BYTES,
}


class Codec:
    """Protobuf forms of contracts: ``encoder`` and ``decoder`` of a Struct, and errors as status details.

    ``open_only``: contracts of which the methods that only services may call are left out, and what only they need.
    """

    def __init__(self, kinds: Sequence[type], *, open_only: Collection[type] = ()) -> None:
        self.schema = Schema(open_only)
        self.schema.message(Problem, "domain")
        self.services = {kind: self.schema.add(kind) for kind in kinds}
        self.pool = descriptor_pool.DescriptorPool()
        self.pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
        self.pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
        self.pool.Add(_status_file())
        numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
        waiting = dict(self.schema.files)
        done = {"google/protobuf/timestamp.proto"}
        while waiting:
            key = next(key for key, file in waiting.items() if file.imports <= done)
            self.pool.Add(_file(key, waiting.pop(key), numbers, self.schema))
            done.add(f"{key}.proto")
        self._status = self._class("google.rpc.Status")
        self._problem_name = self.schema.message(Problem)

    def encoder(self, kind: type) -> Callable[[Any], bytes]:
        """Serialises a Struct; raises `ValidationFailed` for a value that does not fit (a number beyond 64 bits)."""
        form = self.schema.find(self.schema.message(kind))
        made = self._class(form.name)

        def encode(value: Any) -> bytes:
            message = made()
            try:
                self._write(form, message, value)
            except (ValueError, TypeError, OverflowError) as error:
                raise ValidationFailed(f"A value cannot be sent: {error}.") from None
            result: bytes = message.SerializeToString()
            return result

        return encode

    def decoder(self, kind: type) -> Callable[[bytes], Any]:
        """Reads a Struct; raises `ValidationFailed` for bytes that are none."""
        form = self.schema.find(self.schema.message(kind))
        made = self._class(form.name)

        def decode(data: bytes) -> Any:
            try:
                return msgspec.convert(self._read(form, made.FromString(data)), kind)
            except (DecodeError, ValueError, OverflowError) as error:
                raise ValidationFailed(f"This is no {kind.__name__}: {error}.") from None

        return decode

    def details(self, error: StreamGateError, status: int) -> bytes:
        """An error as a serialised ``google.rpc.Status``."""
        message = self._status(code=status, message=error.detail)
        detail = message.details.add()
        detail.type_url = f"type.googleapis.com/{self._problem_name}"
        detail.value = self.encoder(Problem)(problem_of(error))
        result: bytes = message.SerializeToString()
        return result

    def error(self, details: bytes) -> StreamGateError:
        """The error that `details` made; `Internal` for anything else."""
        try:
            message = self._status.FromString(details)
            return error_of(self.decoder(Problem)(message.details[0].value))
        except (DecodeError, IndexError, ValidationFailed):
            return Internal("The other service failed without saying why.")

    def _class(self, name: str) -> Any:
        found: Descriptor = self.pool.FindMessageTypeByName(name)
        return message_factory.GetMessageClass(found)

    def _write(self, form: Message, message: Any, value: Any) -> None:
        for field in form.fields:
            item = getattr(value, field.name)
            if item is msgspec.UNSET or (item is None and field.box != "nullable"):
                continue
            place = getattr(message, field.name)
            if field.box is not None:
                self._fill_box(field, message, item)
            elif field.card == "many":
                self._extend(field, place, item)
            elif field.card == "map":
                for key, one in item.items():
                    if _is_message(field):
                        self._fill(field, place[key], one)
                    else:
                        place[key] = self._scalar(field, one)
            elif _is_message(field):
                place.SetInParent()
                self._fill(field, place, item)
            else:
                setattr(message, field.name, self._scalar(field, item))

    def _fill_box(self, field: Field, message: Any, item: Any) -> None:
        box = getattr(message, field.name)
        box.SetInParent()
        if field.box == "list":
            self._extend(field, box.items, item)
        elif field.box == "pair":
            box.first, box.second = item
        elif item is not None:
            box.value = self._scalar(field, item)

    def _extend(self, field: Field, place: Any, items: Any) -> None:
        if _is_message(field):
            for one in items:
                self._fill(field, place.add(), one)
        else:
            place.extend(items if field.value.python is not Any else [self._scalar(field, one) for one in items])

    def _fill(self, field: Field, place: Any, item: Any) -> None:
        if field.value.python is datetime:
            place.FromDatetime(item if item.tzinfo else item.replace(tzinfo=UTC))
        else:
            self._write(self.schema.find(field.value.proto), place, item)

    def _scalar(self, field: Field, item: Any) -> Any:
        return msgspec.json.encode(item).decode() if field.value.python is Any else item

    def _read(self, form: Message, message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field in form.fields:
            if field.card == "optional" and not message.HasField(field.name):
                if form.python is not None and _required(form.python, field.name):
                    found[field.name] = None
                continue
            item = getattr(message, field.name)
            if field.box == "list":
                found[field.name] = self._plain_items(field, item.items)
            elif field.box == "pair":
                found[field.name] = [item.first, item.second]
            elif field.box == "nullable":
                found[field.name] = self._plain(field, item.value) if item.HasField("value") else None
            elif field.card == "many":
                found[field.name] = self._plain_items(field, item)
            elif field.card == "map":
                found[field.name] = {key: self._plain(field, one) for key, one in item.items()}
            else:
                found[field.name] = self._plain(field, item)
        return found

    def _plain_items(self, field: Field, items: Any) -> list[Any]:
        if _is_message(field) or field.value.python is Any:
            return [self._plain(field, one) for one in items]
        return list(items)

    def _plain(self, field: Field, item: Any) -> Any:
        if field.value.python is Any:
            return msgspec.json.decode(item)
        if field.value.python is datetime:
            return item.ToDatetime(tzinfo=UTC)
        return self._read(self.schema.find(field.value.proto), item) if _is_message(field) else item


def _is_message(field: Field) -> bool:
    return field.value.python is datetime or (
        isinstance(field.value.python, type) and issubclass(field.value.python, msgspec.Struct)
    )


def _required(kind: type, name: str) -> bool:
    return any(item.name == name and item.required for item in msgspec.structs.fields(kind))


def _status_file() -> descriptor_pb2.FileDescriptorProto:
    """``google/rpc/status.proto`` as googleapis has it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="google/rpc/status.proto", package="google.rpc", syntax="proto3", dependency=["google/protobuf/any.proto"]
    )
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, label=1, type=Descriptor_.TYPE_INT32)
    status.field.add(name="message", number=2, label=1, type=Descriptor_.TYPE_STRING)
    status.field.add(name="details", number=3, label=3, type=Descriptor_.TYPE_MESSAGE, type_name=".google.protobuf.Any")
    return file


def _file(key: str, file: File, numbers: forms.Numbers, schema: Schema) -> descriptor_pb2.FileDescriptorProto:
    made = descriptor_pb2.FileDescriptorProto(
        name=f"{key}.proto", package=file.package, syntax="proto3", dependency=sorted(file.imports)
    )
    enums = {f"{other.package}.{name}" for other in schema.files.values() for name in other.enums}
    for name, enumeration in file.enums.items():
        described = made.enum_type.add(name=name)
        for member in enumeration:
            described.value.add(name=f"{name.upper()}_{member.name}", number=member.value)
    for short, message in file.messages.items():
        _describe(made.message_type.add(name=short), message, forms.numbered(message, numbers), enums)
    for name, (_, rpcs) in file.services.items():
        service = made.service.add(name=name)
        for rpc in rpcs:
            prefix = f".{file.package}."
            service.method.add(
                name=rpc.name,
                input_type=prefix + rpc.request.__name__,
                output_type=prefix + rpc.response.__name__,
            )
    return made


def _describe(into: Any, message: Message, numbers: dict[str, int], enums: set[str]) -> None:
    for field in message.fields:
        made = into.field.add(name=field.name, number=numbers[field.name])
        made.label = Descriptor_.LABEL_REPEATED if field.card in {"many", "map"} else Descriptor_.LABEL_OPTIONAL
        target = made
        if field.card == "map":
            entry = into.nested_type.add(name=f"{forms.camel(field.name)}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=1, type=Descriptor_.TYPE_STRING)
            target = entry.field.add(name="value", number=2, label=1)
            made.type = Descriptor_.TYPE_MESSAGE
            made.type_name = f".{message.name}.{entry.name}"
        if field.value.proto in TYPES:
            target.type = TYPES[field.value.proto]
        else:
            target.type = Descriptor_.TYPE_ENUM if field.value.proto in enums else Descriptor_.TYPE_MESSAGE
            target.type_name = f".{field.value.proto}"
        if field.card == "optional":
            made.proto3_optional = True
            made.oneof_index = len(into.oneof_decl)
            into.oneof_decl.add(name=f"_{field.name}")
