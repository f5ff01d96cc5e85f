"""``streamgate doctor``: what of this machine and this configuration works, and what to do about what does not."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from streamgate import __version__
from streamgate.domain.errors import ChainUnavailable, ConfigurationError, StreamGateError
from streamgate.settings import CoreSettings, load

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
SCARCE = 0.10


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``ok``, ``warn`` or ``fail``, of what, and a sentence that says what was found and what to do."""

    status: str
    what: str
    detail: str


def run(config_file: Path | None, flags: Mapping[str, Any]) -> bool:
    """Examine everything and print a line for each finding; whether nothing failed."""

    async def go() -> bool:
        healthy = True
        async for finding in _examine(config_file, flags):
            click.echo(f"{MARKS[finding.status]} {finding.what}: {finding.detail}")
            healthy = healthy and finding.status != "fail"
        return healthy

    return asyncio.run(go())


async def _examine(config_file: Path | None, flags: Mapping[str, Any]) -> AsyncIterator[Finding]:
    from streamgate.kernel import discover

    kernel = platform.release()
    yield Finding("ok", "Python", f"{platform.python_version()} on Linux {kernel}, StreamGate {__version__}")
    try:
        plugins = discover()
        yield Finding("ok", "plugins", ", ".join(plugin.name for plugin in plugins))
        settings = load(plugins, service="monolith", config_file=config_file, flags=flags)
    except ConfigurationError as error:
        yield Finding("fail", "settings", str(error))
        return
    yield Finding("ok", "settings", f"valid; public address {settings.public_url or 'as it listens'}")
    yield _data_directory(settings.data_dir.resolve())
    yield await _database(settings)
    yield _signatures()
    yield _encoders()
    yield await _sandbox()
    async for finding in _chains(settings):
        yield finding


def _data_directory(folder: Path) -> Finding:
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir():
        return Finding("fail", "data directory", f"{place} is a file; choose another with --data-dir.")
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("fail", "data directory", f"{place} cannot be written by this user.")
    usage = shutil.disk_usage(place)
    free = f"{usage.free / (1 << 30):.1f} GiB free"
    if usage.free < usage.total * SCARCE:
        return Finding("warn", "data directory", f"{folder}, only {free}; films need room.")
    if folder.exists() and folder.stat().st_mode & 0o077:
        return Finding(
            "warn", "data directory", f"{folder} can be read by other users; chmod 700 keeps its keys private."
        )
    return Finding("ok", "data directory", f"{folder}, {free}")


async def _database(settings: CoreSettings) -> Finding:
    from streamgate.openers import database_url
    from streamgate.runtime.migrate import pending

    url = database_url(settings)
    kind = url.partition(":")[0].partition("+")[0]
    if kind == "sqlite" and settings.database.url is None and not (settings.data_dir / "streamgate.db").exists():
        return Finding("ok", "database", "embedded SQLite, made at the first start")
    try:
        behind = await pending(url)
    except (StreamGateError, ConfigurationError, OSError) as error:
        return Finding("fail", "database", f"{kind} does not answer ({type(error).__name__}); check database.url.")
    except Exception as error:  # noqa: BLE001 (drivers raise what they like)
        return Finding("fail", "database", f"{kind} does not answer ({type(error).__name__}); check database.url.")
    if behind:
        return Finding("warn", "database", f"{kind}, its tables are not up to date; run `streamgate migrate`.")
    return Finding("ok", "database", f"{kind}, its tables are up to date")


def _signatures() -> Finding:
    try:
        import coincurve
    except ImportError:
        return Finding("fail", "signatures", "coincurve is missing; install streamgate[auth].")
    return Finding(
        "ok", "signatures", f"coincurve {coincurve.__version__ if hasattr(coincurve, '__version__') else ''}".strip()
    )


def _encoders() -> Finding:
    try:
        from streamgate.media.opening import library_versions
    except ImportError:
        return Finding("fail", "encoders", "PyAV is missing; install streamgate[transcoder].")
    version, missing = library_versions()
    if missing:
        return Finding("fail", "encoders", f"PyAV {version} lacks {', '.join(missing)}; install it from PyPI.")
    return Finding("ok", "encoders", f"PyAV {version} with x264 and AAC; {os.cpu_count()} processors")


async def _sandbox() -> Finding:
    from streamgate.media.sandbox import Sandbox

    with tempfile.TemporaryDirectory() as scratch:
        try:
            async with Sandbox.open(Path(scratch)) as sandbox:
                absent = [name for name, held in sandbox.protections().items() if not held]
        except StreamGateError as error:
            return Finding("fail", "sandbox", f"no media child can be started: {error.detail}")
    if absent:
        held = f"media children run without {', '.join(absent)}; a newer kernel or other container rights give them."
        return Finding("warn", "sandbox", held)
    return Finding("ok", "sandbox", "media children are confined by everything that there is")


async def _chains(settings: CoreSettings) -> AsyncIterator[Finding]:
    if not settings.chains:
        yield Finding("ok", "chains", "none configured; policies over holdings need `chains.<id>.endpoints`.")
        return
    from streamgate.adapters.chain_jsonrpc import JsonRpcChains
    from streamgate.domain.clock import SystemClock

    for name, section in settings.chains.items():
        for number, url in enumerate(section.endpoints):
            where = f"endpoint {number + 1} of {len(section.endpoints)}"
            async with JsonRpcChains({name: (url.get_secret_value(),)}, SystemClock()) as chains:
                try:
                    head = await chains.head(name)
                except ChainUnavailable as error:
                    yield Finding("fail", f"chains {name}", f"{where}: {error.detail} Check its URL and its chain id.")
                    continue
            yield Finding("ok", f"chains {name}", f"{where} is at block {head.number}")


def quiet() -> None:
    """Findings are printed; the log lines of what is examined are not."""
    from streamgate.runtime.telemetry import configure_logging

    configure_logging(
        level="error", form="console" if sys.stderr.isatty() else "json", service="doctor", version=__version__
    )
