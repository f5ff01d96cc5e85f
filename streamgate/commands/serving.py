"""``streamgate serve``, ``migrate`` and ``plugins``."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from streamgate.domain.errors import ConfigurationError
from streamgate.kernel import Plugin, discover, select
from streamgate.kernel.registry import GROUP
from streamgate.settings import load

GATEWAY = "http://127.0.0.1:9090"
"""Where people reach services that run apart, unless the settings say so."""


def run(mode: str, service: str | None, config_file: Path | None, flags: Mapping[str, Any]) -> None:
    """Serve until told to stop."""
    # Hardly anything made while starting is ever garbage: collecting begins when the process is ready.
    gc.disable()
    import uvloop

    from streamgate import __version__, app
    from streamgate.runtime.telemetry import configure_logging

    name, plugins = chosen(mode, service)
    settings = load(plugins, service=name, config_file=config_file, flags=flags, known_sections=_sections())
    apart = mode == "microservice"
    if apart:
        from streamgate import apart as between

        between.check(settings, plugins)
        if settings.public_url is None:
            settings = settings.model_copy(update={"public_url": GATEWAY})
    configure_logging(level=settings.log_level, form=settings.log_format, service=name, version=__version__)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                app.serve(settings, plugins, name, _announce, apart=apart and settings.service_key_file is not None)
            )
    except* ConfigurationError as group:
        raise ConfigurationError("; ".join(str(error) for error in _leaves(group))) from None


def chosen(mode: str, service: str | None) -> tuple[str, list[Plugin[Any]]]:
    """The name that the process goes by, and the plugins it runs: all of them, or one."""
    if mode == "monolith":
        if service is not None:
            raise ConfigurationError("--service goes with --mode microservice; the monolith runs every service.")
        return "monolith", discover()
    if service is None:
        raise ConfigurationError("--mode microservice needs --service NAME; `streamgate plugins` lists the names.")
    if service not in {point.name for point in entry_points(group=GROUP)}:
        select(discover(), service)
    return service, [select(discover({service}), service)]


def _announce(running: Any) -> None:
    """Tell a person where the product is, and where the administrator's key; the key itself only on a terminal."""
    site = running.site
    click.echo(f"StreamGate {site.version} ({site.service}) answers at {site.public_url}", err=True)
    key_file = site.data_dir / "admin.key"
    if key_file.is_file():
        click.echo(f"Administrator key: {key_file}", err=True)
        if sys.stderr.isatty():
            click.echo(f"  {key_file.read_text(encoding='ascii').strip()}", err=True)


def migrate(config_file: Path | None, flags: Mapping[str, Any]) -> str:
    """Bring the configured database up to date; what to tell about it."""
    from streamgate import openers
    from streamgate.runtime import migrate as migrations

    settings = load([], service="monolith", config_file=config_file, flags=flags, known_sections=_sections())
    url = openers.database_url(settings)

    async def go() -> str:
        if not await migrations.pending(url):
            return "The database is up to date."
        await migrations.migrate(url)
        return "The database was brought up to date."

    if url.startswith("sqlite"):
        with openers.data_directory_lock(settings.data_dir.resolve()):
            return asyncio.run(go())
    return asyncio.run(go())


def installed() -> list[tuple[str, str, str, str]]:
    """Name, distribution, provides and requires of every installed plugin."""
    origin = {
        point.name: f"{point.dist.name} {point.dist.version}" if point.dist else "?"
        for point in entry_points(group=GROUP)
    }
    return [
        (
            plugin.name,
            origin[plugin.name],
            ", ".join(kind.__name__ for kind in plugin.provides),
            ", ".join(kind.__name__ for kind in plugin.requires),
        )
        for plugin in discover()
    ]


def _sections() -> frozenset[str]:
    return frozenset(point.name.replace("-", "_") for point in entry_points(group=GROUP))


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
