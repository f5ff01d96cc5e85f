"""Field numbers stay: what would change or reuse one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools.proto import FOLDER, LOCK, Refused, extended, files, schema


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the committed files."""
    return Path(shutil.copytree(FOLDER, tmp_path / "proto"))


def change(folder: Path, message: str, field: str, number: int) -> None:
    locked = json.loads((folder / LOCK.name).read_text())
    locked[message][field] = number
    (folder / LOCK.name).write_text(json.dumps(locked))


def test_what_is_committed_is_what_the_contracts_say(folder: Path) -> None:
    made = files(folder)
    assert {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".py"} == made


def test_a_changed_number_is_refused(folder: Path) -> None:
    change(folder, "streamgate.cache.v1.PurgeRequest", "tags", 7)
    with pytest.raises(Refused, match=r"PurgeRequest\.tags has the number 1"):
        files(folder)


def test_a_number_that_stands_twice_is_refused(folder: Path) -> None:
    change(folder, "streamgate.cache.v1.TierStatistics", "hits", 1)
    with pytest.raises(Refused, match="stands twice"):
        files(folder)


def test_the_number_of_a_field_that_is_gone_is_reserved(folder: Path) -> None:
    change(folder, "streamgate.cache.v1.PurgeRequest", "everything", 2)
    assert '  reserved 2;\n  reserved "everything";' in files(folder)["cache.proto"]


def test_new_fields_get_numbers_that_nothing_had() -> None:
    numbers = extended(schema(), {"streamgate.cache.v1.PurgeRequest": {"gone": 5}})
    assert numbers["streamgate.cache.v1.PurgeRequest"] == {"gone": 5, "tags": 6}
