"""BlobStore: immutable objects by key.

A key is ``/``-separated segments of ``[A-Za-z0-9._-]``, none of them empty, ``.`` or ``..``, at most 512 characters in all;
anything else is a `ValueError`, since keys are made by the product and never by people. Objects are written once: a
second ``put`` of the same key replaces the object as a whole, and a reader sees the old bytes or the new, never a mixture.

Every method raises `Unavailable` when the store does not answer and `InsufficientStorage` when it is full.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """An object: its key, its length in bytes, an opaque validator that differs when the bytes do, its last change."""

    key: str
    length: int
    etag: str
    modified_ms: int


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Consecutive bytes of one object: ``length`` bytes from ``offset``."""

    key: str
    offset: int
    length: int


class BlobStore(ABC):
    """Objects by key; see the module for the law of keys."""

    can_append: bool = False
    """Whether `append` works."""

    is_local: bool = False
    """Whether `materialise` of one whole object is that object's own file, without a copy."""

    can_presign: bool = False
    """Whether `presign` works."""

    @abstractmethod
    async def put(self, key: str, data: AsyncIterator[bytes] | bytes) -> BlobInfo:
        """Store an object, atomically: durable (fsynced) before it returns; after any error nothing is visible."""

    @abstractmethod
    def open(self, key: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from ``offset``, ``length`` of them (None: to the end), in pieces of at most 1 MiB.

        `NotFound` when there is no such object; `ValueError` when the range does not lie inside it.
        """

    @abstractmethod
    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """The same as one value, for small objects and segments."""

    def at_hand(self, key: str, base: int, starts: Sequence[int], ends: Sequence[int]) -> memoryview | None:
        """Ranges of an object, which begin and end so many bytes from ``base``, one after the other, where they can be had without
        waiting for anything: no disk, no network, no thread. None says nothing.

        The bytes are lent: they are good until the store is asked for anything else, so nothing may be awaited in between.
        """
        return None

    @abstractmethod
    async def stat(self, key: str) -> BlobInfo | None:
        """What is known of an object; None when there is none."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""

    @abstractmethod
    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key begins with ``prefix`` (which ends in ``/``); how many there were."""

    @abstractmethod
    def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Every object whose key begins with ``prefix``, in order of their keys."""

    @abstractmethod
    def materialise(self, parts: Sequence[BlobRange]) -> AbstractAsyncContextManager[Path]:
        """One local file with the parts joined, for as long as the block runs.

        A single whole object of a local store is its own file, without a copy; anything else is copied into a bounded
        scratch cache. The file must not be written to.
        """

    @abstractmethod
    async def free_bytes(self) -> int | None:
        """Room left; None when the store does not know."""

    @abstractmethod
    async def healthy(self) -> bool:
        """Whether the store answers now and takes objects, as far as a quick look can tell. Raises nothing."""

    async def append(self, key: str, offset: int, data: AsyncIterator[bytes]) -> int:
        """Cut the object (made when missing) to ``offset`` bytes, add ``data``, and return its new length.

        What was written is durable (fdatasync) before it returns. When ``data`` raises, what came before it is made
        durable too and the error goes on; the object may then be longer than ``offset``: the caller's row says what counts.
        `Conflict` when the object is shorter than ``offset``.
        """
        raise NotImplementedError

    async def presign(self, key: str, expires_s: int) -> str:
        """A URL that reads the object without credentials for ``expires_s`` seconds."""
        raise NotImplementedError
