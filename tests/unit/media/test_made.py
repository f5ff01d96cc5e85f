"""A child's word of what it has written counts for what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from streamgate.media.made import as_copied, as_written
from streamgate.media.model import Grown, remuxed_file
from tests.unit.transcoder.test_standing import film

BEFORE = Grown(size=100, state=b"state")
WRITTEN = Grown(size=107, written=(3, 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, length in enumerate((3, 4)):
        (tmp_path / remuxed_file(number)).write_bytes(bytes(length))
    return tmp_path


def test_files_of_a_look_are_there_and_go_on_from_the_last(folder: Path) -> None:
    assert as_copied(WRITTEN, BEFORE, folder)
    assert as_copied(Grown(), BEFORE, folder)
    lies = (replace(WRITTEN, size=108), replace(WRITTEN, written=(3, 5), size=108), replace(WRITTEN, written=(3, 4, 0)))
    assert not any(as_copied(lie, BEFORE, folder) for lie in lies)
    (folder / remuxed_file(1)).unlink()
    (folder / remuxed_file(1)).symlink_to(folder / remuxed_file(0))
    assert not as_copied(replace(WRITTEN, written=(3, 3), size=106), BEFORE, folder)


def test_a_plan_goes_on_from_what_there_was_or_from_nothing(folder: Path) -> None:
    plan = film().plan
    assert plan is not None
    plan = replace(plan, remuxed=(3, 4))
    assert as_written(plan, folder, None)
    assert as_written(plan, folder, BEFORE)
    assert as_written(replace(plan, remuxed_before=100), folder, BEFORE)
    assert not as_written(replace(plan, remuxed_before=100), folder, None)
    assert not as_written(replace(plan, remuxed_before=99), folder, BEFORE)
    assert not as_written(replace(plan, remuxed=(3,), remuxed_before=0), None, None)
