"""The shape that the architecture promises, read from the source: sizes, names, and who may use which library.

Which package may import which of our own is held by import-linter (`make check`); this is about the rest.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "streamgate"

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
LARGEST_KERNEL = 500
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "impl"}
HEAVY = {"aiohttp", "alembic", "av", "coincurve", "eth_account", "grpc", "litestar", "numpy", "sqlalchemy", "uvicorn"}


@cache
def sources() -> dict[str, str]:
    """Every module of the package: path under the root → text."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def tree(path: str) -> ast.Module:
    return ast.parse(sources()[path], path)


def imports(node: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere under ``node``, also inside functions and under TYPE_CHECKING."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom):
            assert inner.level == 0, "imports are absolute"
            yield inner.module or ""


def users_of(library: str) -> set[str]:
    """The files that import the library."""
    return {path for path in sources() if any(name.split(".")[0] == library for name in imports(tree(path)))}


def test_no_file_is_too_long() -> None:
    assert {p: n for p, text in sources().items() if (n := len(text.splitlines())) > LONGEST_FILE} == {}


def lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without those of classes inside it (controllers are made over their service)."""
    inner = [child for child in node.body if isinstance(child, ast.ClassDef)]
    return lines(node) - sum(lines(child) for child in inner)


def test_no_function_is_too_long() -> None:
    found = {}
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > LONGEST_FUNCTION:
                found[f"{path}:{node.name}"] = length(node)
    assert found == {}


def test_every_name_says_what_is_inside() -> None:
    words = {path: set(re.split(r"[_/]", path.removesuffix(".py"))) for path in sources()}
    assert {path for path, parts in words.items() if parts & NAMES_THAT_SAY_NOTHING} == set()
    classes = {
        f"{path}:{node.name}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and re.search(r"(Impl|Manager|Helper|Base|Utils?)$", node.name)
    }
    assert classes == set()


def test_the_kernel_is_small_and_knows_nobody() -> None:
    files = {path: text for path, text in sources().items() if path.startswith("streamgate/kernel/")}
    assert sum(len(text.splitlines()) for text in files.values()) < LARGEST_KERNEL
    foreign = {
        f"{path} imports {name}"
        for path in files
        for name in imports(tree(path))
        if name.split(".")[0] == "streamgate" and not name.startswith(("streamgate.kernel", "streamgate.domain"))
    }
    assert foreign == set()
    names = {path.parent.name.replace("_", "-") for path in (PACKAGE / "plugins").glob("*/plugin.py")}
    constants = {
        node.value
        for path in files
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert names
    assert constants & names == set()


def is_http(path: str) -> bool:
    file = PurePosixPath(path)
    return (
        path == "streamgate/app.py"
        or (path.startswith("streamgate/plugins/") and file.name == "http.py")
        or bool(re.fullmatch(r"streamgate/runtime/http\w*\.py", path))
    )


def is_sql(path: str) -> bool:
    return path.startswith("streamgate/runtime/") or PurePosixPath(path).name in {"store.py", "tables.py"}


INDEXING = {
    f"streamgate/packaging/{name}.py"
    for name in (
        "cutting",
        "fragments",
        "heads",
        "keyframes",
        "matroska",
        "matroskaindex",
        "opus",
        "sampleindex",
        "sampletables",
        "timing",
        "transport",
        "tspackets",
    )
}
"""Reading a container's index, which happens in children only; serving from a stored index needs no numpy."""

PLACES: dict[str, Callable[[str], bool]] = {
    "litestar": is_http,
    "sqlalchemy": is_sql,
    "alembic": lambda path: path == "streamgate/runtime/migrate.py",
    "av": lambda path: path.startswith("streamgate/media/"),
    "numpy": lambda path: path.startswith("streamgate/media/") or path in INDEXING,
    "grpc": lambda path: path.startswith("streamgate/runtime/rpc/"),
    "uvicorn": lambda path: path == "streamgate/app.py" or path.startswith("streamgate/runtime/"),
}
"""Library → where it may be used."""


@pytest.mark.parametrize("library", PLACES)
def test_a_library_is_used_in_its_place_only(library: str) -> None:
    assert {path for path in users_of(library) if not PLACES[library](path)} == set()


@pytest.mark.parametrize("library", ["litestar", "sqlalchemy", "alembic"])
def test_the_places_are_found_at_all(library: str) -> None:
    assert users_of(library), "a rule that nothing can break shows nothing"


def test_nothing_prints() -> None:
    found = {
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert found == set()


def test_nothing_asks_for_the_mode_outside_the_command_line() -> None:
    """Mode decides which plugins load and how a need is bound, and nothing else."""
    found = {
        path
        for path in sources()
        if not path.startswith(("streamgate/cli.py", "streamgate/commands/"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Compare)
        and any(
            isinstance(c, ast.Constant) and c.value in {"monolith", "microservice"}
            for c in [node.left, *node.comparators]
        )
    }
    assert found == set()


def test_controllers_stand_in_http_and_sql_in_stores() -> None:
    """Every plugin uses the same names for the same things."""
    for path in sources():
        file = PurePosixPath(path)
        if not path.startswith("streamgate/plugins/") or file.name == "__init__.py":
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if "Controller" in bases:
                    assert file.name == "http.py", path
                if node.name.endswith("Settings") and "BaseModel" in bases:
                    assert file.name == "settings.py", path


def test_every_plugin_is_declared_where_it_is_looked_for() -> None:
    for folder in sorted((PACKAGE / "plugins").iterdir()):
        if folder.is_dir() and any(f.suffix == ".py" and f.name != "__init__.py" for f in folder.iterdir()):
            assert (folder / "plugin.py").is_file(), f"{folder.name} declares no plugin"
            assert (folder / "settings.py").is_file(), f"{folder.name} says nothing of its settings"


PLUGINS = sorted(path.parent.name for path in (PACKAGE / "plugins").glob("*/plugin.py"))


def test_serving_from_a_stored_index_needs_no_reader_of_containers() -> None:
    code = "import sys, streamgate.packaging.segments; print(*({'numpy', 'streamgate.packaging.mp4boxes'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", PLUGINS)
def test_naming_a_plugin_loads_no_heavy_library(name: str) -> None:
    code = (
        f"import sys, streamgate.plugins.{name}.plugin as p; print(p.plugin.name, *sorted(set(sys.modules) & {HEAVY}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == [name.replace("_", "-")]
