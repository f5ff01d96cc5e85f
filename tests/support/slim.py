"""Environments that hold no more than a service's own extras ask for, made of what is installed here."""

from __future__ import annotations

import re
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def slim(folder: Path, *extras: str) -> Path:
    """The interpreter of a new environment with ``streamgate[extras]`` and what that requires, and nothing else.

    Distributions are linked, not copied: their versions are those that are locked and installed.
    """
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for found in required(extras).values():
        for name in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            link = packages / name
            if not link.is_symlink():
                link.symlink_to(Path(str(found.locate_file(name))))
    return folder / "bin" / "python"


def required(extras: Iterable[str]) -> dict[str, Distribution]:
    """By name, the distributions that the product requires with these extras."""
    found: dict[str, Distribution] = {}
    known: set[tuple[str, str]] = set()
    waiting = [("streamgate", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in known:
            continue
        known.add((name, extra))
        found[name] = distribution(name)
        for text in found[name].requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                inner = re.sub(r"[-_.]+", "-", wanted.name).lower()
                waiting += [(inner, more) for more in ("", *wanted.extras)]
    return found
