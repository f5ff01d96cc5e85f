"""Write the reference pages that are made from the code, or with ``--check`` say whether they are what it would write.

Run by ``make docs``. Pages: settings, routes, errors, commands, in docs/reference/.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from streamgate.cli import main as command_line
from streamgate.domain.asset import FailureCode
from streamgate.domain.errors import BY_CODE
from streamgate.kernel import discover
from streamgate.plugins.streaming.media_app import ROUTES
from streamgate.runtime.problems import STATUS
from streamgate.settings import ALIASES, PREFIX, model_for
from tools.openapi import BUILT_IN, SNAPSHOT

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Made by `make docs`; edit the code instead. -->\n"


def settings_page() -> str:
    """Every setting: name, variable, default, meaning."""
    model = model_for(discover(BUILT_IN))
    sections: dict[str, list[str]] = {"": []}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            sections[name] = [_setting(f"{name}.{key}", sub) for key, sub in inner.model_fields.items()]
        else:
            sections[""].append(_setting(name, field))
    sections.setdefault("chains", []).append(
        "| `chains.<id>.endpoints` | – | required | JSON-RPC URLs of the chain, in order of preference. |"
    )
    parts = [
        NOTE,
        "# Settings\n",
        "Later ones win: defaults, `config/base.yaml`, `config/services/<name>.yaml`,",
        "`config/env/<environment>.yaml`, the file of `--config`, the environment, flags. Lists and maps in the",
        "environment are JSON. Any variable also works with `_FILE` at its end, naming a file that holds the value.",
        "An unknown key stops the start.\n",
        "| alias | stands for |\n|---|---|",
        *(f"| `{alias}` | `{section}.{key}` |" for alias, (section, key) in ALIASES.items()),
        "",
    ]
    for section, rows in sections.items():
        if rows:
            parts += [f"## {section or 'General'}\n", "| setting | variable | default | meaning |\n|---|---|---|---|"]
            parts += [*rows, ""]
    return "\n".join(parts)


def _setting(name: str, field: Any) -> str:
    variable = PREFIX + name.replace(".", "__").upper()
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        shown = "required"
    elif default is None or isinstance(default, SecretStr):
        shown = "–"
    elif isinstance(default, Path):
        shown = f"`{default}`"
    else:
        shown = f"`{msgspec.json.encode(default, enc_hook=str).decode()}`"
    return f"| `{name}` | `{variable}` | {shown} | {field.description or ''} |"


def routes_page() -> str:
    """Every route of the API, from the OpenAPI snapshot, and the media addresses."""
    document = msgspec.json.decode(SNAPSHOT.read_bytes())
    rows = [
        f"| `{method.upper()}` | `{path}` | {operation.get('x-least-role', 'anonymous')} | {operation.get('summary', '')} |"
        for path, item in sorted(document["paths"].items())
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    ]
    media = [(path, what) for path, (_, what) in ROUTES.items()]
    return "\n".join(
        [
            NOTE,
            "# Routes\n",
            "The full description is the OpenAPI 3.1 document at `/openapi.json`, for people at `/docs`. `role` is the",
            "least that may call. Errors are [problem documents](errors.md). Every process also answers `/health`,",
            "`/health/live`, `/health/ready` and `/metrics`.\n",
            "| method | path | role | what |\n|---|---|---|---|",
            *rows,
            "\n## Media addresses\n",
            "Under `/p/{token}/{asset_id}/`, with the token that `POST /api/v1/assets/{asset_id}/playback` answers",
            "inside its URLs. `GET`, `HEAD` and `OPTIONS`; ranges, validators and CORS (`*`) on all of them.\n",
            "| path | what |\n|---|---|",
            *(f"| `{path}` | {what} |" for path, what in media),
            "",
        ]
    )


def errors_page() -> str:
    """Every problem code with its status and meaning, and the codes of failed films."""
    rows = [
        f"| `{code}` | {STATUS[code]} | {inspect.cleandoc(kind.__doc__ or '').splitlines()[0]} |"
        for code, kind in sorted(BY_CODE.items())
    ]
    return "\n".join(
        [
            NOTE,
            "# Errors\n",
            "Every answer that is no success is `application/problem+json` (RFC 9457) with `type`, `title`, `status`,",
            "`detail`, `code`, `request_id`, and `errors[]` with JSON pointers where the input is to blame. `code` is",
            "stable; `detail` is for people.\n",
            "| code | status | meaning |\n|---|---|---|",
            *rows,
            "\n## Why a film failed\n",
            "`error.code` of an asset in state `failed`:\n",
            *(f"- `{code.value}`" for code in FailureCode),
            "",
        ]
    )


def commands_page() -> str:
    """Every command with its help."""
    parts = [NOTE, "# Commands\n", "Exit codes: 0 done, 1 failed, 2 wrong use or configuration.\n"]
    for path, command in _commands(command_line, ("streamgate",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=100, terminal_width=100)
        parts += [f"## {' '.join(path)}\n", f"```\n{command.get_help(context)}\n```\n"]
    return "\n".join(parts)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _commands(inner, (*path, name))


PAGES = {"settings.md": settings_page, "routes.md": routes_page, "errors.md": errors_page, "commands.md": commands_page}


def main() -> int:
    """Exit code 0 when the pages are written or right, 1 when one is not what it should be."""
    check = "--check" in sys.argv[1:]
    wrong = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        path, text = FOLDER / name, write().rstrip() + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            wrong.append(name)
    if wrong:
        sys.stderr.write(f"Out of date: docs/reference/{', '.join(wrong)}; run: make docs\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
