"""A real PostgreSQL of the tests' own: on a free port, in a folder, run by a user that is not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.support.server import lasting_port

USER = "streamgate"


class Postgres:
    """A server that can be killed and started again on its port and data. ``durable`` False: it does not sync."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.port = lasting_port()
        self._folder = folder
        self._durable = durable
        self._programs = programs()
        self._become = _as_other_user(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Write an empty data directory."""
        command = [str(self._programs / "initdb"), "-D", str(self._folder / "data"), "-U", USER, "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, preexec_fn=self._become, cwd="/")

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = (
            () if self._durable else ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
        )
        command = [
            *(str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)),
            *("-h", "127.0.0.1", "-k", str(self._folder)),
            *("-c", "max_connections=300", "-c", "shared_buffers=32MB", *options),
        ]
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=self._become, cwd="/", stdin=subprocess.DEVNULL
            )
        _wait(self, self._process)

    def kill(self) -> None:
        """SIGKILL to all of its processes: as when the power fails."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """SIGINT: connections are ended, then the server."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def url(self, database: str, port: int | None = None) -> str:
        """The SQLAlchemy URL of one of its databases. ``port``: another way to it."""
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{port or self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser; what psql prints."""
        command = [str(self._programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        done = subprocess.run([*command, "-qAtc", statement], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self, template: str | None = None) -> str:
        """A new database, empty or a copy of another; its name."""
        name = f"t{secrets.token_hex(8)}"
        self.sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def programs() -> Path:
    """The folder of the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    assert program, "postgresql is missing; run: make test"
    return Path(program).resolve().parent


def _as_other_user(folder: Path) -> Callable[[], None] | None:
    """Root may not run PostgreSQL: become ``postgres`` or ``nobody`` in the child."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    for parent in folder.parents:
        if parent == Path("/tmp"):
            break
        parent.chmod(parent.stat().st_mode | 0o111)

    def become() -> None:
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return become


@contextlib.contextmanager
def postgres(folder: Path, *, durable: bool = False) -> Iterator[Postgres]:
    """A fresh server, ended afterwards. ``durable`` False: it does not sync, which tests of crashes need."""
    if os.getuid() == 0:
        # pytest closes the folder above all its runs to other users whenever one more run begins.
        with tempfile.TemporaryDirectory(prefix="streamgate-postgres-", dir="/tmp", ignore_cleanup_errors=True) as own:
            with _running(Path(own), durable=durable) as server:
                yield server
        return
    with _running(folder, durable=durable) as server:
        yield server


@contextlib.contextmanager
def _running(folder: Path, *, durable: bool) -> Iterator[Postgres]:
    server = Postgres(folder, durable=durable)
    server.make()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _wait(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(AssertionError):
            server.sql("SELECT 1")
            return
        time.sleep(0.05)
    raise AssertionError("PostgreSQL did not start")
