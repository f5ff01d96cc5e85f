"""Uploads, owned by the upload service: resumable uploads and the source bytes that finished ones left."""

from __future__ import annotations

from typing import Protocol

import msgspec

from streamgate.contracts.declare import contract, fact, signal


class SourcePart(msgspec.Struct, frozen=True):
    """One immutable object of a source: its storage key and its length in bytes."""

    key: str
    length: int


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The uploaded bytes of a film: the parts, in order, joined. ``size`` is the sum of their lengths."""

    asset_id: str
    size: int
    parts: tuple[SourcePart, ...]
    filename: str | None = None
    filetype: str | None = None


class GrowingSource(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a film whose upload still runs: those of the parts, in order, joined, are there and count.

    ``size``: bytes of the whole, as announced. The parts stay, with these bytes, until the upload or the film ends. ``tail``: the
    last bytes of the whole, sent ahead to be looked at; it goes when the upload ends, and nothing of it is the film.
    """

    asset_id: str
    size: int
    parts: tuple[SourcePart, ...]
    tail: SourcePart | None = None

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        return sum(part.length for part in self.parts)


class GrowingPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the job ``transcoder.growing`` (queue ``growing``): follow an upload of which bytes have begun to arrive.

    Its key is ``growing:<asset_id>``; it is submitted again when bytes come after a pause.
    """

    asset_id: str


class IngestPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the job ``transcoder.ingest`` (queue ``transcode``), submitted as an upload completes.

    The job's key is ``ingest:<asset_id>`` and its owner the account that uploaded.
    """

    asset_id: str


@fact("upload.completed")
class UploadCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """Every byte of a film's source is stored; its ingest job was submitted in the same transaction."""

    asset_id: str
    upload_id: str
    owner: str
    size: int


@signal("upload.wanted")
class UploadWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody is to write to the upload: the process whose writer has the lock ``token`` stores what came and lets go."""

    upload_id: str
    token: str


@contract(
    service="upload", routes=("/api/v1/uploads", "/api/v1/uploads/{upload_id}", "/api/v1/uploads/{upload_id}/index")
)
class Uploads(Protocol):
    """Source bytes of films. Listens to `metadata.AssetDeleted` to delete them."""

    async def source(self, asset_id: str) -> Source:
        """Where the film's bytes lie; `NotFound` when the film has no completed upload."""
        ...

    async def growing(self, asset_id: str) -> GrowingSource:
        """What has arrived of a film; `NotFound` when no upload of it of known length runs (any more, or yet)."""
        ...
