"""Stubs as anybody would generate them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tools.proto import FOLDER


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Gives a generated module by its name, made from the emitted files with grpcio-tools."""
    folder = tmp_path_factory.mktemp("stubs")
    files = [str(path) for path in sorted(FOLDER.glob("*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", *files], check=True, timeout=120)
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path.remove(str(folder))
