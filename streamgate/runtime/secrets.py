"""Secret files: made once, readable by their owner alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from streamgate.domain.errors import ConfigurationError

_KEYED = re.compile(r"([A-Za-z0-9_-]{1,32}) ([0-9a-f]{64})\Z")


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of ``path``; when it does not exist it is made (mode 0600, durable) from ``make``.

    `ConfigurationError` when the file can be read by others, or neither read nor made.
    """
    try:
        return read_secret(path)
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = make()
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(partial, path)
        except FileExistsError:
            return read_secret(path)
        finally:
            partial.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"The secret file {path} cannot be made: {error.strerror}.") from error
    return content


def read_secret(path: Path) -> bytes:
    """The content of an existing secret file; `FileNotFoundError` when there is none."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise ConfigurationError(f"The secret file {path} can be read by others; run: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"The secret file {path} cannot be read: {error.strerror}.") from error


def keyed_secrets(content: bytes, path: Path) -> dict[str, bytes]:
    """The secrets of a key file, by kid, in the order of the file: lines ``<kid> <64 hex digits>``, ``#`` begins a comment line.

    `ConfigurationError` names the first line that is not one, or says that there is none.
    """
    found: dict[str, bytes] = {}
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _KEYED.match(line.strip())
        if match is None or match[1] in found:
            raise ConfigurationError(f"{path}, line {number}: expected `<kid> <64 hex digits>`, each kid once.")
        found[match[1]] = bytes.fromhex(match[2])
    if not found:
        raise ConfigurationError(f"{path} holds no key.")
    return found
