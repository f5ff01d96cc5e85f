"""Write the .proto files of the contracts, or with ``--check`` say whether they are what the contracts would write.

Run by ``make proto``. Field numbers are locked in ``numbers.json``: a field keeps its number for ever, a field that is gone
leaves it reserved. A number that differs from the one in the committed .proto file, or stands twice, is refused.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import streamgate.contracts
from streamgate.contracts.declare import open_to, scope_of
from streamgate.runtime.rpc.problem import Problem
from streamgate.runtime.rpc.schema import File, Message, Schema, Value, camel, numbered

FOLDER = Path(streamgate.contracts.__file__).parent / "proto"
LOCK = FOLDER / "numbers.json"

Numbers = dict[str, dict[str, int]]


class Refused(Exception):
    """The numbers are not to be trusted."""


def schema() -> Schema:
    """The schema of every contract of the product."""
    made = Schema()
    made.message(Problem, "domain")
    for module in pkgutil.iter_modules(streamgate.contracts.__path__):
        content = vars(importlib.import_module(f"streamgate.contracts.{module.name}"))
        for kind in content.values():
            if isinstance(kind, type) and "__contract__" in vars(kind) and kind.__module__.endswith(f".{module.name}"):
                made.add(kind)
    return made


def extended(made: Schema, locked: Numbers) -> Numbers:
    """The lock with numbers for what is new; what it has stays. `Refused` for a number that stands twice."""
    numbers = {name: dict(fields) for name, fields in locked.items()}
    for file in made.files.values():
        for message in file.messages.values():
            fields = numbers.setdefault(message.name, {})
            for item in message.fields:
                fields.setdefault(item.name, max(fields.values(), default=0) + 1)
    for name, fields in numbers.items():
        if len(set(fields.values())) != len(fields):
            raise Refused(f"{name}: a field number stands twice in numbers.json")
    return numbers


def committed(folder: Path) -> Numbers:
    """The numbers that stand in the .proto files."""
    found: Numbers = {}
    for path in sorted(folder.glob("*.proto")):
        text = path.read_text(encoding="utf-8")
        package = re.search(r"^package (\S+);", text, re.MULTILINE)
        for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            fields = re.findall(r"^  [^/\n]*?(\w+) = (\d+);", body, re.MULTILINE)
            found[f"{package[1] if package else ''}.{name}"] = {field: int(number) for field, number in fields}
    return found


def refuse_changes(folder: Path, numbers: Numbers) -> None:
    """`Refused` when a committed file has a field under another number than the lock."""
    for name, fields in committed(folder).items():
        for field, number in fields.items():
            if numbers.get(name, {}).get(field) != number:
                raise Refused(f"{name}.{field} has the number {number} in its .proto file and another in numbers.json")


def render(file: File, numbers: Numbers) -> str:
    """The text of one file."""
    lines = [
        "// Made from the contracts by `make proto`.",
        'syntax = "proto3";',
        "",
        f"package {file.package};",
        "",
    ]
    lines += [f'import "{name}";' for name in sorted(file.imports)] + ([""] if file.imports else [])
    for name, (kind, rpcs) in sorted(file.services.items()):
        lines += [*_comment(kind.__doc__), f"service {name} {{"]
        for rpc in rpcs:
            lines += [
                *_comment(rpc.function.__doc__, "  "),
                f"  // Open to {_opening(rpc.function)}.",
                f"  rpc {rpc.name}({rpc.request.__name__}) returns ({rpc.response.__name__});",
            ]
        lines += ["}", ""]
    for name, enumeration in sorted(file.enums.items()):
        lines += [*_comment(enumeration.__doc__), f"enum {name} {{"]
        lines += [f"  {_screaming(name)}_{member.name} = {member.value};" for member in enumeration] + ["}", ""]
    for _, message in sorted(file.messages.items()):
        lines += [*_message(message, numbers[message.name], file), ""]
    return "\n".join(lines)


def _message(message: Message, locked: dict[str, int], file: File) -> list[str]:
    numbers = numbered(message, {message.name: locked})
    lines = [*_comment(message.doc), f"message {message.name.rpartition('.')[2]} {{"]
    if gone := sorted(locked.keys() - numbers.keys()):
        lines.append(f"  reserved {', '.join(str(locked[name]) for name in gone)};")
        lines.append("  reserved " + ", ".join(f'"{name}"' for name in gone) + ";")
    for item in sorted(message.fields, key=lambda item: numbers[item.name]):
        kind = item.value.proto.removeprefix(f"{file.package}.")
        label = {"one": "", "optional": "optional ", "many": "repeated ", "map": ""}[item.card]
        kind = f"map<string, {kind}>" if item.card == "map" else kind
        lines.append(f"  {label}{kind} {item.name} = {numbers[item.name]};{_remark(item.value)}")
    return [*lines, "}"]


def _remark(value: Value) -> str:
    if value.python is Any:
        return "  // JSON"
    return f"  // one of: {', '.join(value.allowed)}" if value.allowed else ""


def _opening(function: Any) -> str:
    role, scope = open_to(function), scope_of(function)
    if role is None:
        return "services only"
    return f"role {role.name.lower()} and above; a narrowed API key needs {scope or 'more than any scope gives'}"


def _comment(text: str | None, indent: str = "") -> list[str]:
    return [f"{indent}// {line}".rstrip() for line in inspect.cleandoc(text or "").splitlines()]


def _screaming(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", camel(name)).upper()


def files(folder: Path = FOLDER) -> dict[str, str]:
    """File name → content, the lock among them."""
    lock = folder / LOCK.name
    made = schema()
    numbers = extended(made, json.loads(lock.read_text(encoding="utf-8")) if lock.exists() else {})
    refuse_changes(folder, numbers)
    written = {f"{key}.proto": render(file, numbers) for key, file in made.files.items()}
    return {**written, LOCK.name: json.dumps(numbers, indent=1, sort_keys=True) + "\n"}


def main() -> int:
    """Exit code 0 when the files are written or right, 1 when they are not what they should be."""
    try:
        made = files()
    except Refused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    if "--check" not in sys.argv[1:]:
        for name, content in made.items():
            (FOLDER / name).write_text(content, encoding="utf-8")
        return 0
    there = {
        path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.suffix in {".proto", ".json"}
    }
    if there == made:
        return 0
    sys.stderr.write("The .proto files are out of date; run: make proto\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
