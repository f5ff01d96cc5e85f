"""Whether all of a film's uploaded bytes are there is found out with few requests, and never believed of what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamgate.adapters.storage_local import LocalBlobStore
from streamgate.domain.asset import FailureCode, MediaRefused
from streamgate.domain.errors import Unavailable
from streamgate.plugins.transcoder.objects import all_there
from streamgate.plugins.transcoder.sources import checked
from streamgate.ports.storage import BlobInfo

PARTS = 200


class Asked(LocalBlobStore):
    """Counts how often it is asked. ``behind``: its lists do not name what was stored lately."""

    asked = 0
    behind = False

    async def stat(self, key: str) -> BlobInfo | None:
        self.asked += 1
        return await super().stat(key)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        asked = self.asked
        found = [] if self.behind else [info async for info in super().list(prefix)]
        self.asked = asked + 1
        for info in found:
            yield info


@pytest.fixture
async def parts(tmp_path: Path) -> tuple[Asked, list[str]]:
    blobs = Asked(tmp_path)
    keys = [*(f"uploads/upl_1/{n}-0a" for n in range(PARTS)), "uploads/upl_2/0-0a", "alone"]
    for key in keys:
        await blobs.put(key, b"x")
    blobs.asked = 0
    return blobs, keys


async def test_many_parts_of_an_upload_take_one_request(parts: tuple[Asked, list[str]]) -> None:
    blobs, keys = parts
    assert await all_there(blobs, keys)
    assert blobs.asked == 3, "a list, and the two that lie alone"


async def test_a_part_that_is_gone_is_missed_among_many(parts: tuple[Asked, list[str]]) -> None:
    blobs, keys = parts
    await blobs.delete(keys[PARTS // 2])
    assert not await all_there(blobs, keys)


async def test_parts_that_a_list_does_not_name_yet_are_there(parts: tuple[Asked, list[str]]) -> None:
    blobs, keys = parts
    blobs.behind = True
    assert await all_there(blobs, keys)


async def test_that_bytes_are_gone_is_said_whatever_became_of_the_work_beside_it() -> None:
    async def gone() -> None:
        raise MediaRefused(FailureCode.TRUNCATED_MEDIA, "The bytes are gone.")

    async def there() -> None:
        return

    async def fails() -> int:
        raise Unavailable("The source cannot be read.")

    async def works() -> int:
        return 1

    assert await checked(works(), there()) == 1
    with pytest.raises(Unavailable):
        await checked(fails(), there())
    for work in (works(), fails()):
        with pytest.raises(MediaRefused):
            await checked(work, gone())
