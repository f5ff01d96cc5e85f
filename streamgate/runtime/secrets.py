"""Secret files: made once, readable by their owner alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from streamgate.domain.errors import ConfigurationError


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
