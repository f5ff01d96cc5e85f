"""Objects as files of one folder. A key is the file's path below the folder.

New objects are written to a partial file of the same file system, synced, and renamed into place, and the folder is synced
(after rename(2) a crash shows the old object or the new one). What a crash leaves is in ``~partial`` and removed at start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from streamgate.domain.errors import Conflict, InsufficientStorage, NotFound, Unavailable
from streamgate.ports.storage import BlobInfo, BlobRange, BlobStore

PIECE = 1 << 20
MOST_AT_ONCE = 4 << 20
"""Bytes that are copied out of the page cache while everything else waits: a third of a millisecond."""

MOST_RANGES = 1024
"""Ranges that are read so one by one, in a microsecond each."""

SYNCED_EARLY = 8 << 20
"""Bytes after which a file that is being written is synced in the background."""

MOST_PIECES = 256
"""Pieces that one writev(2) takes; the system allows 1024."""

LONGEST_KEY = 512
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_PARTIAL = "~partial"

T = TypeVar("T")


class LocalBlobStore(BlobStore):
    """``root`` is made when missing. One process at a time may use it (the data directory's lock sees to that)."""

    can_append = True
    is_local = True

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._partial = self._root / _PARTIAL
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._desk = memoryview(bytearray(MOST_AT_ONCE))

    async def put(self, key: str, data: AsyncIterator[bytes] | bytes) -> BlobInfo:
        path = self._path(key)
        partial = self._partial / secrets.token_hex(12)
        try:
            file = await _in_thread(_create, partial)
            try:
                if isinstance(data, bytes):
                    await _in_thread(_write, file, data)
                else:
                    await _copy(data, file)
                await _in_thread(os.fsync, file.fileno())
            finally:
                await _in_thread(file.close)
            await _in_thread(_publish, partial, path, self._root)
            return await _in_thread(_info, key, path)
        finally:
            partial.unlink(missing_ok=True)

    async def open(self, key: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        path = self._path(key)
        file = await _in_thread(_open_to_read, path)
        try:
            left = _span(os.fstat(file.fileno()).st_size, offset, length)
            await _in_thread(file.seek, offset)
            while left > 0:
                piece = await _in_thread(file.read, min(PIECE, left))
                if not piece:
                    raise Unavailable("The object became shorter while it was read.")
                left -= len(piece)
                yield piece
        finally:
            file.close()

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        found = self._in_memory(path, offset, (0,), (length,))
        return await _in_thread(_read, path, offset, length) if found is None else bytes(found)

    def at_hand(self, key: str, base: int, starts: Sequence[int], ends: Sequence[int]) -> memoryview | None:
        return self._in_memory(self._path(key), base, starts, ends) if len(starts) <= MOST_RANGES else None

    def _in_memory(self, path: Path, base: int, starts: Sequence[int], ends: Sequence[int | None]) -> memoryview | None:
        """What lies in the page cache, without waiting for a disk or a thread (preadv(2), ``RWF_NOWAIT``), on `_desk`.

        None where not all of it does, where the file system cannot tell, for more than `MOST_AT_ONCE`, and for all that is an
        error.
        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            desk, filled = self._desk, 0
            for start, end in zip(starts, ends, strict=True):
                wanted = (os.fstat(handle).st_size - base if end is None else end) - start
                if base + start < 0 or not 0 < wanted <= MOST_AT_ONCE - filled:
                    return None
                if os.preadv(handle, (desk[filled : filled + wanted],), base + start, os.RWF_NOWAIT) != wanted:
                    return None
                filled += wanted
        except OSError:
            return None
        finally:
            os.close(handle)
        return desk[:filled]

    async def stat(self, key: str) -> BlobInfo | None:
        path = self._path(key)
        try:
            return await _in_thread(_info, key, path)
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        path = self._path(key)
        await _in_thread(path.unlink, True)

    async def delete_prefix(self, prefix: str) -> int:
        if not prefix.endswith("/"):
            raise ValueError("a prefix to delete ends in /")
        folder = self._path(prefix[:-1])

        def remove() -> int:
            count = sum(1 for _ in _walk(folder, ""))
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                raise OSError(errno.EIO, "objects could not be removed")
            return count

        return await _in_thread(remove)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        base = prefix.rpartition("/")[0]
        folder = self._path(base) if base else self._root
        keys = iter(await _in_thread(lambda: [key for key in _walk(folder, base) if key.startswith(prefix)]))
        for key in keys:
            info = await self.stat(key)
            if info is not None:
                yield info

    @asynccontextmanager
    async def materialise(self, parts: Sequence[BlobRange]) -> AsyncIterator[Path]:
        if len(parts) == 1 and parts[0].offset == 0:
            info = await self.stat(parts[0].key)
            if info is not None and info.length == parts[0].length:
                yield self._path(info.key)
                return
        joined = self._partial / secrets.token_hex(12)
        try:
            with await _in_thread(_create, joined) as file:
                for part in parts:
                    await _copy(self.open(part.key, part.offset, part.length), file)
            yield joined
        finally:
            joined.unlink(missing_ok=True)

    async def free_bytes(self) -> int | None:
        return (await _in_thread(shutil.disk_usage, self._root)).free

    async def healthy(self) -> bool:
        return await _in_thread(os.access, self._partial, os.W_OK | os.X_OK)

    async def append(self, key: str, offset: int, data: AsyncIterator[bytes]) -> int:
        path = self._path(key)
        file = await _in_thread(_open_to_append, path, self._root)
        try:
            if os.fstat(file.fileno()).st_size < offset:
                raise Conflict("The object is shorter than the offset to append at.")
            await _in_thread(file.truncate, offset)
            await _in_thread(file.seek, offset)
            try:
                await _copy(data, file)
            finally:
                await _in_thread(os.fdatasync, file.fileno())
            return file.tell()
        finally:
            await _in_thread(file.close)

    def _path(self, key: str) -> Path:
        segments = key.split("/")
        if len(key) > LONGEST_KEY or not all(_SEGMENT.match(s) and s not in {".", ".."} for s in segments):
            raise ValueError(f"not a key: {key[:80]!r}")
        return self._root.joinpath(*segments)


def _begun(work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def _settled(future: asyncio.Future[T]) -> T:
    """What file work came to, its errors as those of the tree; when cancelled, wait for it first, so that nothing goes on
    behind our back."""
    try:
        with _translated():
            return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    return await _settled(_begun(work, *arguments))


async def _copy(data: AsyncIterator[bytes], file: BinaryIO) -> None:
    """Write what comes, also what came before an error."""
    behind = _Behind(file)
    try:
        async for piece in data:
            await behind.take(piece)
    finally:
        await behind.finish()


class _Behind:
    """Writes behind the sender: one write and one sync at a time, in threads, while the next bytes arrive.

    Syncing early leaves little to wait for at the end; whoever promises durability syncs once more then.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self._gathered = self._unsynced = 0
        self._writing: asyncio.Future[None] | None = None
        self._syncing: asyncio.Future[None] | None = None

    async def take(self, piece: bytes) -> None:
        """Gather; once a whole `PIECE` is there, wait for the write before and begin the next."""
        self._pieces.append(piece)
        self._gathered += len(piece)
        if self._gathered >= PIECE:
            await self._next()

    async def finish(self) -> None:
        """Everything taken is written, and no thread is at work any more."""
        try:
            if self._pieces:
                await self._next()
            if self._writing is not None:
                await _settled(self._writing)
        finally:
            if self._syncing is not None:
                await _settled(self._syncing)

    async def _next(self) -> None:
        if self._writing is not None:
            await _settled(self._writing)
        self._unsynced += self._gathered
        self._writing = _begun(_write_all, self._file.fileno(), self._pieces)
        self._pieces, self._gathered = [], 0
        if self._unsynced >= SYNCED_EARLY and (self._syncing is None or self._syncing.done()):
            if self._syncing is not None:
                await _settled(self._syncing)
            self._unsynced = 0
            self._syncing = _begun(os.fdatasync, self._file.fileno())


def _write_all(handle: int, pieces: list[bytes]) -> None:
    left = [memoryview(piece) for piece in pieces if piece]
    while left:
        written = os.writev(handle, left[:MOST_PIECES])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _write(file: BinaryIO, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _publish(partial: Path, path: Path, root: Path) -> None:
    """Rename a synced file into place, durably."""
    _make_folders(path.parent, root)
    partial.replace(path)
    _sync_folder(path.parent)


def _create(path: Path) -> BinaryIO:
    return path.open("xb", 0)


def _read(path: Path, offset: int, length: int | None) -> bytes:
    with path.open("rb", 0) as file:
        handle = file.fileno()
        left = _span(os.fstat(handle).st_size, offset, length)
        pieces: list[bytes] = []
        while left:
            piece = os.pread(handle, left, offset)
            if not piece:
                raise Unavailable("The object became shorter while it was read.")
            pieces.append(piece)
            offset, left = offset + len(piece), left - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _open_to_read(path: Path) -> BinaryIO:
    return path.open("rb", 0)


def _open_to_append(path: Path, root: Path) -> BinaryIO:
    try:
        return path.open("r+b", 0)
    except FileNotFoundError:
        _make_folders(path.parent, root)
        file = path.open("x+b", 0)
        _sync_folder(path.parent)
        return file


def _make_folders(folder: Path, root: Path) -> None:
    """Make a folder and those above it, each durable in the one that holds it."""
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _info(key: str, path: Path) -> BlobInfo:
    found = path.stat()
    if path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "a folder is no object")
    etag = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    return BlobInfo(key, found.st_size, etag, found.st_mtime_ns // 1_000_000)


def _walk(folder: Path, base: str) -> Iterator[str]:
    """Keys below a folder, in the order of the keys themselves."""
    try:
        entries = [(entry.name + "/" if entry.is_dir() else entry.name) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(entries):
        key = f"{base}/{name}" if base else name
        if name == f"{_PARTIAL}/":
            continue
        if name.endswith("/"):
            yield from _walk(folder / name[:-1], key[:-1])
        else:
            yield key


def _span(size: int, offset: int, length: int | None) -> int:
    if offset < 0 or offset > size or (length is not None and not 0 <= length <= size - offset):
        raise ValueError(f"a range from {offset} does not lie inside an object of {size} bytes")
    return size - offset if length is None else length


@contextmanager
def _translated() -> Iterator[None]:
    """What the operating system says, as errors of the tree."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound("There is no such object.") from None
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise InsufficientStorage("The disk is full.") from error
        raise Unavailable(f"The storage failed ({os.strerror(error.errno or errno.EIO)}).", retry_after=5) from error
