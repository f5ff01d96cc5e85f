"""The API's own description: the packaged OpenAPI snapshot, and a page made from it that needs nothing from elsewhere."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Any

import msgspec

SNAPSHOT = "openapi.json"
_METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f;background:#fff}
h1{margin-bottom:.2rem}h2{margin:2rem 0 .5rem;text-transform:capitalize}details{border:1px solid #d8d8e0;border-radius:.4rem;
margin:.4rem 0;padding:.4rem .8rem}summary{cursor:pointer}code{font:14px ui-monospace,monospace}.m{display:inline-block;
min-width:4.5rem;font-weight:700}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#e6e6ea;background:#17171b}details{border-color:#3a3a44}a{color:#9ecbff}}
"""


def snapshot() -> bytes:
    """The OpenAPI 3.1 document as it was when this version was built."""
    return files(__package__).joinpath(SNAPSHOT).read_bytes()


def page(document: bytes) -> bytes:
    """The document as one HTML page without scripts."""
    spec: dict[str, Any] = msgspec.json.decode(document)
    groups: dict[str, list[str]] = {}
    for path, item in spec["paths"].items():
        for method in _METHODS:
            operation = item.get(method)
            if operation is not None:
                tag = (operation.get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(entries)}" for tag, entries in sorted(groups.items()))
    title = html.escape(f"{spec['info']['title']} {spec['info']['version']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1><p>Machine-readable: <a href=/openapi.json>openapi.json</a>. Callers send "
        f"<code>Authorization: Bearer &lt;access token or API key&gt;</code>; errors are problem documents (RFC 9457).</p>{body}"
    ).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(p['name'])}</code><td>{html.escape(p['in'])}<td>{html.escape(p.get('description', ''))}"
        for p in operation.get("parameters", ())
    )
    answers = ", ".join(html.escape(code) for code in operation.get("responses", {}))
    return (
        f"<details><summary><code><span class=m>{method.upper()}</span>{html.escape(path)}</code> "
        f"{html.escape(operation.get('summary', ''))}</summary><p>{html.escape(operation.get('description', ''))}</p>"
        f"<table>{rows}</table><p>Answers: {answers}</p></details>"
    )
