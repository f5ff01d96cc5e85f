"""Scripts of tests/node, run with Node.js."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "node"
MODULES = FOLDER / "node_modules"


def command(script: str, arguments: Any = None) -> list[str]:
    """The command line of a script with its arguments as one JSON value."""
    if not MODULES.is_dir():
        raise AssertionError("tests/node/node_modules is missing; run: make test")
    return ["node", str(FOLDER / script), *([] if arguments is None else [json.dumps(arguments)])]


def run(script: str, arguments: Any = None, *, timeout_s: float = 120) -> str:
    """What a script prints; fails with what it says when it fails."""
    done = subprocess.run(
        command(script, arguments), cwd=FOLDER, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
