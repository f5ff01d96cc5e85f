"""``streamgate jobs`` and ``streamgate keys``."""

from __future__ import annotations

from typing import Any

import click

from streamgate.commands.calling import call_now


def list_jobs(server: str, key: str, *, state: str | None, subject: str | None, limit: int) -> None:
    """A line for each job, newest first."""
    page = call_now(server, key, "GET", "/api/v1/jobs", query={"state": state, "subject": subject, "limit": limit})
    click.echo(f"{'ID':26} {'KIND':18} {'STATE':9} {'DONE':>5}  {'TRIES':>5}  ABOUT")
    for job in page["items"]:
        click.echo(
            f"{job['id']:26} {job['kind']:18} {job['state']:9} {job['progress']:>5.0%}  {job['attempt']:>5}"
            f"  {job['subject'] or '–'}"
        )
    if page["next_cursor"]:
        click.echo("There are more; narrow them down with --state or --asset.", err=True)


def one_job(server: str, key: str, job_id: str, action: str) -> None:
    """Show a job, or do something to it and show what it is then."""
    path = f"/api/v1/jobs/{job_id}"
    job = call_now(server, key, "GET", path) if action == "show" else call_now(server, key, "POST", f"{path}/{action}")
    for name, value in job.items():
        if name != "errors":
            click.echo(f"{name:12} {'–' if value is None else value}")
    for error in job["errors"]:
        click.echo(f"{'error':12} {error['at']} {error['code']}: {error['detail']}")


def create_key(server: str, key: str, **request: Any) -> None:
    """Make a key; the key itself on stdout, the rest on stderr."""
    made = call_now(server, key, "POST", "/api/v1/auth/api-keys", body=request)
    click.echo(f"{made['id']} ({made['role']}); the key is shown this once:", err=True)
    click.echo(made["key"])


def list_keys(server: str, key: str) -> None:
    """A line for each key."""
    click.echo(f"{'ID':26} {'ROLE':8} {'BEGINS WITH':14} {'EXPIRES':28} {'NAME':20} SCOPES")
    for item in call_now(server, key, "GET", "/api/v1/auth/api-keys")["items"]:
        expires = item["expires_at"] or "never"
        scopes = " ".join(item["scopes"] or ["all"])
        click.echo(f"{item['id']:26} {item['role']:8} {item['prefix']:14} {expires:28} {item['name']:20} {scopes}")


def revoke_key(server: str, key: str, key_id: str) -> None:
    """End a key."""
    call_now(server, key, "DELETE", f"/api/v1/auth/api-keys/{key_id}")
    click.echo(f"{key_id} is ended.")
