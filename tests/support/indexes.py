"""Sample indexes that were not read out of a film."""

from __future__ import annotations

from streamgate.packaging.cmaf import ALIKE
from streamgate.packaging.indexes import Divided
from streamgate.packaging.segments import ROW, StoredTrack, stored
from streamgate.ports.storage import BlobStore

SOURCE_SIZE = 1 << 30


def made_up(segments: int = 1, samples: int = 1, *, tracks: int = 1, size: int = 1) -> bytes:
    """An index of tracks of so many segments of so many samples, each ``size`` bytes and a range of its own."""
    record = samples * size.to_bytes(4, "big") + b"".join(
        (2 * number * size).to_bytes(4, "little") for number in range(samples)
    )
    rows = b"".join(
        ROW.pack(number * len(record), number * samples, 0, len(record), ALIKE, 1, samples, samples, samples * size)
        for number in range(segments)
    )
    return stored(SOURCE_SIZE, [StoredTrack(number, rows, [record] * segments) for number in range(tracks)])


def keys(index: Divided) -> set[str]:
    """The keys of all the objects of an index."""
    return {key for part in (index.opening(), index.rest()) for key, _ in part}


async def put(blobs: BlobStore, index: Divided) -> None:
    """Store all of an index."""
    for part in (index.opening(), index.rest()):
        for key, data in part:
            await blobs.put(key, data)


async def read(blobs: BlobStore, index: Divided) -> bytes:
    """What is stored of it, joined."""
    front, *pieces = sorted(keys(index), key=lambda key: (not key.endswith("front"), len(key), key))
    return b"".join([await blobs.read(key) for key in (front, *pieces)])
