"""The command ``streamgate``. Exit codes: 0 done, 1 failed, 2 wrong use or configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from streamgate import __version__
from streamgate.domain.errors import ConfigurationError, StreamGateError


class Commands(click.Group):
    """Turns the errors of the product into one sentence and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"streamgate: {error}", err=True)
            sys.exit(2)
        except StreamGateError as error:
            click.echo(f"streamgate: {error.detail} ({error.code})", err=True)
            for wrong in error.errors:
                if wrong.detail != error.detail:
                    click.echo(f"  {wrong.pointer or 'the whole'}: {wrong.detail}", err=True)
            sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="streamgate")
def main() -> None:
    """Self-hosted, token-gated video.

    \b
    Example:
      streamgate serve --mode monolith
    """


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A YAML file that overrides the others.",
)
data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of all local state [default: ./data]."
)


def _address(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        parsed = urlsplit(value)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(f"{value!r} is no address such as http://127.0.0.1:8080.")
    return value


server_option = click.option(
    "--server",
    callback=_address,
    envvar="STREAMGATE_SERVER",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Address of the server.",
)
key_option = click.option(
    "--api-key", envvar="STREAMGATE_API_KEY", help="API key [default: STREAMGATE_API_KEY, else <data-dir>/admin.key]."
)


@main.command()
@click.option("--mode", type=click.Choice(["monolith", "microservice"]), default="monolith", show_default=True)
@click.option("--service", help="Which service to run; needed in microservice mode.")
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.")
@data_dir_option
def serve(
    mode: str, service: str | None, config_file: Path | None, host: str | None, port: int | None, data_dir: Path | None
) -> None:
    """Run the product, or one of its services.

    \b
    Example:
      streamgate serve --mode monolith --port 8080
      streamgate serve --mode microservice --service monitor
    """
    from streamgate.commands import serving

    flags = {"host": host, "port": port, "data_dir": data_dir}
    serving.run(mode, service, config_file, {name: value for name, value in flags.items() if value is not None})


@main.command()
@config_option
@data_dir_option
def migrate(config_file: Path | None, data_dir: Path | None) -> None:
    """Bring the database's tables up to date. Needed before the services start; the embedded default does it by itself.

    \b
    Example:
      streamgate migrate --config /etc/streamgate.yaml
    """
    from streamgate.commands import serving

    click.echo(serving.migrate(config_file, {"data_dir": data_dir} if data_dir else {}))


@main.command()
@config_option
@data_dir_option
def doctor(config_file: Path | None, data_dir: Path | None) -> None:
    """Examine this machine and this configuration; says what to do about what does not work. Exits with 1 when something fails.

    \b
    Example:
      streamgate doctor
    """
    from streamgate.commands import doctor as examination

    examination.quiet()
    if not examination.run(config_file, {"data_dir": data_dir} if data_dir else {}):
        sys.exit(1)


@main.command()
def plugins() -> None:
    """List the installed plugins: what each provides and requires.

    \b
    Example:
      streamgate plugins
    """
    from streamgate.commands import serving

    for name, origin, provides, requires in serving.installed():
        click.echo(f"{name:14} {origin:34} provides {provides or '–'}; requires {requires or '–'}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--title", help="Title of the film [default: the file's name].")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A policy document (JSON); gates the film.",
)
@server_option
@key_option
@data_dir_option
def upload(
    file: Path, title: str | None, policy_file: Path | None, server: str, api_key: str | None, data_dir: Path | None
) -> None:
    """Upload a film; run it again to go on where it stopped. Prints the film's id and an address that any player opens.

    \b
    Example:
      streamgate upload film.mp4 --title "My film"
    """
    from streamgate.commands import uploading

    uploading.run(file, title, policy_file, server, _key(api_key, data_dir))


@main.group()
def jobs() -> None:
    """Look after jobs.

    \b
    Example:
      streamgate jobs list --state failed
    """


@jobs.command("list")
@click.option("--state", type=click.Choice(["queued", "running", "done", "failed", "canceled"]))
@click.option("--asset", help="Only jobs about this film.")
@click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True)
@server_option
@key_option
@data_dir_option
def jobs_list(
    state: str | None, asset: str | None, limit: int, server: str, api_key: str | None, data_dir: Path | None
) -> None:
    """List jobs, newest first.

    \b
    Example:
      streamgate jobs list --state failed
    """
    from streamgate.commands import managing

    managing.list_jobs(server, _key(api_key, data_dir), state=state, subject=asset, limit=limit)


def _job_command(name: str, summary: str) -> None:
    @jobs.command(name, help=f"{summary}\n\n\b\nExample:\n  streamgate jobs {name} job_…")
    @click.argument("job_id")
    @server_option
    @key_option
    @data_dir_option
    def command(job_id: str, server: str, api_key: str | None, data_dir: Path | None) -> None:
        from streamgate.commands import managing

        managing.one_job(server, _key(api_key, data_dir), job_id, name)


_job_command("show", "Show one job.")
_job_command("retry", "Run a failed or canceled job again.")
_job_command("cancel", "Cancel a job.")


@main.group()
def keys() -> None:
    """Make and end API keys.

    \b
    Example:
      streamgate keys create --name uploader
    """


@keys.command("create")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--role", type=click.Choice(["viewer", "creator", "admin"]), default="creator", show_default=True)
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="Narrow it, as in assets:read; repeatable [default: not]."
)
@click.option("--expires-in", type=click.IntRange(min=60), help="Seconds until it ends [default: never].")
@server_option
@key_option
@data_dir_option
def keys_create(
    name: str,
    role: str,
    scopes: tuple[str, ...],
    expires_in: int | None,
    server: str,
    api_key: str | None,
    data_dir: Path | None,
) -> None:
    """Make a key. It is shown this once.

    \b
    Example:
      streamgate keys create --name uploader --role creator --scope uploads:read --scope uploads:write
    """
    from streamgate.commands import managing

    managing.create_key(
        server, _key(api_key, data_dir), name=name, role=role, scopes=scopes or None, expires_in=expires_in
    )


@keys.command("list")
@server_option
@key_option
@data_dir_option
def keys_list(server: str, api_key: str | None, data_dir: Path | None) -> None:
    """List keys; their secrets are not shown.

    \b
    Example:
      streamgate keys list
    """
    from streamgate.commands import managing

    managing.list_keys(server, _key(api_key, data_dir))


@keys.command("revoke")
@click.argument("key_id")
@server_option
@key_option
@data_dir_option
def keys_revoke(key_id: str, server: str, api_key: str | None, data_dir: Path | None) -> None:
    """End a key, and the playback that was started with it.

    \b
    Example:
      streamgate keys revoke key_…
    """
    from streamgate.commands import managing

    managing.revoke_key(server, _key(api_key, data_dir), key_id)


def _key(given: str | None, data_dir: Path | None) -> str:
    """The API key to use: as given, else that of the data directory's administrator."""
    if given:
        return given
    import os

    folder = data_dir or Path(os.environ.get("STREAMGATE_DATA_DIR", "data"))
    try:
        return (folder / "admin.key").read_text(encoding="ascii").strip()
    except OSError:
        raise ConfigurationError(
            f"No API key: give --api-key, set STREAMGATE_API_KEY, or run where {folder / 'admin.key'} can be read."
        ) from None
