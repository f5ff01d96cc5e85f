"""Objects in a bucket of an S3 service (API version 2006-03-01), addressed by path.

S3 shows an object only when it is whole, and is read-after-write consistent; that is all of the port's law that is not in
here. Credentials are the service's alone: people get presigned URLs that name one object and end soon.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import ClientError as TransportError
from botocore.exceptions import BotoCoreError, ClientError

from streamgate.domain.errors import ConfigurationError, InsufficientStorage, NotFound, Unavailable
from streamgate.ports.storage import BlobInfo, BlobRange, BlobStore

PIECE = 1 << 20
PART = 8 << 20
"""Bytes of a part of a multipart upload; S3 wants at least 5 MiB, and at most 10,000 of them."""

CONNECT_S = 5
SILENT_S = 30
"""Seconds that the service may say nothing; then the request is sent once more, on another connection."""

AT_ONCE = 64 << 20
"""Bytes that are in memory already and up to which they are sent in one request."""

LONGEST_KEY = 512
MANY = 1000
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"})
_OUTSIDE = frozenset({"InvalidRange", "416"})


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects lie. ``public_endpoint``: how people reach the same service, where that differs; for presigned URLs."""

    endpoint: str
    name: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    public_endpoint: str | None = None
    create: bool = False


class S3BlobStore(BlobStore):
    """An async context manager: it owns its connections. ``scratch``: folder of `materialise`."""

    can_presign = True

    def __init__(self, bucket: Bucket, scratch: Path) -> None:
        self._bucket = bucket
        self._scratch = scratch
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._public: Any = None

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connect(self) -> None:
        bucket = self._bucket
        self._s3 = await self._client(bucket.endpoint)
        self._public = await self._client(bucket.public_endpoint) if bucket.public_endpoint else self._s3
        try:
            await self._s3.head_bucket(Bucket=bucket.name)
        except ClientError as error:
            if _code(error) not in {"404", "NoSuchBucket", "NotFound"} or not bucket.create:
                raise ConfigurationError(
                    f"The bucket {bucket.name} cannot be used ({_code(error)}); check storage.s3.bucket and its credentials."
                ) from None
            try:
                await self._s3.create_bucket(Bucket=bucket.name)
            except ClientError as raced:
                # Services that start together make it together.
                if _code(raced) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise
        except (BotoCoreError, TransportError, OSError) as error:
            raise ConfigurationError(f"The S3 service does not answer ({type(error).__name__}).") from None

    async def put(self, key: str, data: AsyncIterator[bytes] | bytes) -> BlobInfo:
        name = _checked(key)
        parts = _in_parts(data)
        first = await anext(parts, b"")
        second = await anext(parts, None)
        with _translated():
            if second is None:
                await self._s3.put_object(Bucket=self._bucket.name, Key=name, Body=first)
            else:
                await self._put_in_parts(name, first, second, parts)
            return await self._info(name)

    async def _put_in_parts(self, key: str, first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> None:
        where = {"Bucket": self._bucket.name, "Key": key}
        upload = (await self._s3.create_multipart_upload(**where))["UploadId"]
        made: list[dict[str, Any]] = []

        async def send(body: bytes) -> None:
            number = len(made) + 1
            done = await self._s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
            made.append({"ETag": done["ETag"], "PartNumber": number})

        try:
            await send(first)
            await send(second)
            async for body in rest:
                await send(body)
            await self._s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": made})
        except BaseException:
            await asyncio.shield(_quietly(self._s3.abort_multipart_upload(**where, UploadId=upload)))
            raise

    async def open(self, key: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        found = await self._get(_checked(key), offset, length)
        if found is None:
            return
        async with found["Body"] as body:
            left = found["ContentLength"]
            while left > 0:
                with _translated():
                    piece = await body.read(min(PIECE, left))
                if not piece:
                    raise Unavailable("The object became shorter while it was read.")
                left -= len(piece)
                yield piece

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        found = await self._get(_checked(key), offset, length)
        if found is None:
            return b""
        async with found["Body"] as body:
            with _translated():
                data: bytes = await body.read()
        if len(data) != found["ContentLength"]:
            raise Unavailable("The object became shorter while it was read.")
        return data

    async def stat(self, key: str) -> BlobInfo | None:
        try:
            with _translated():
                return await self._info(_checked(key))
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        with _translated():
            await self._s3.delete_object(Bucket=self._bucket.name, Key=_checked(key))

    async def healthy(self) -> bool:
        try:
            await self._s3.head_bucket(Bucket=self._bucket.name)
        except (BotoCoreError, ClientError, TransportError, TimeoutError, OSError):
            return False
        return True

    async def delete_prefix(self, prefix: str) -> int:
        if not prefix.endswith("/"):
            raise ValueError("a prefix to delete ends in /")
        keys = [info.key async for info in self.list(prefix)]
        for first in range(0, len(keys), MANY):
            doomed = [{"Key": key} for key in keys[first : first + MANY]]
            with _translated():
                done = await self._s3.delete_objects(
                    Bucket=self._bucket.name, Delete={"Objects": doomed, "Quiet": True}
                )
            if done.get("Errors"):
                raise Unavailable("Some objects could not be removed.")
        return len(keys)

    async def list(self, prefix: str) -> AsyncIterator[BlobInfo]:
        found: list[BlobInfo] = []
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket.name, Prefix=prefix)
        with _translated():
            async for page in pages:
                found += [_listed(item) for item in page.get("Contents", ())]
        # Some services list by folders first, which is another order than that of the keys.
        for info in sorted(found, key=lambda info: info.key):
            yield info

    @asynccontextmanager
    async def materialise(self, parts: Sequence[BlobRange]) -> AsyncIterator[Path]:
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="materialised-") as file:
            for part in parts:
                async for piece in self.open(part.key, part.offset, part.length):
                    await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(file.flush)
            yield Path(file.name)

    async def free_bytes(self) -> int | None:
        return None

    async def presign(self, key: str, expires_s: int) -> str:
        where = {"Bucket": self._bucket.name, "Key": _checked(key)}
        url: str = await self._public.generate_presigned_url("get_object", Params=where, ExpiresIn=expires_s)
        return url

    async def _client(self, endpoint: str) -> Any:
        config = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=CONNECT_S,
            read_timeout=SILENT_S,
            max_pool_connections=64,
            retries={"max_attempts": 3, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        made = get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=self._bucket.region,
            aws_access_key_id=self._bucket.access_key,
            aws_secret_access_key=self._bucket.secret_key,
            config=config,
        )
        client = await self._stack.enter_async_context(made)
        client.meta.events.register("before-send.s3", _at_once)
        return client

    async def _info(self, key: str) -> BlobInfo:
        head = await self._s3.head_object(Bucket=self._bucket.name, Key=key)
        changed = int(head["LastModified"].timestamp() * 1000)
        return BlobInfo(key, head["ContentLength"], head["ETag"].strip('"'), changed)

    async def _get(self, key: str, offset: int, length: int | None) -> dict[str, Any] | None:
        """The answer to a GET of exactly that range; None for an empty one. Raises `NotFound`, `ValueError`."""
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("a range begins and is not negative")
        if length == 0:
            await self._check_inside(key, offset)
            return None
        where: dict[str, Any] = {"Bucket": self._bucket.name, "Key": key}
        if offset or length is not None:
            where["Range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
        try:
            with _translated():
                found: dict[str, Any] = await self._s3.get_object(**where)
        except _Outside:
            if length is not None:
                raise ValueError("a range that does not lie inside the object") from None
            await self._check_inside(key, offset)
            return None
        if length is not None and found["ContentLength"] != length:
            found["Body"].close()
            raise ValueError("a range that does not lie inside the object")
        return found

    async def _check_inside(self, key: str, offset: int) -> None:
        """Raises `ValueError` for an offset beyond the object's end."""
        with _translated():
            info = await self._info(key)
        if offset > info.length:
            raise ValueError("a range that does not lie inside the object")


def _at_once(request: Any, **_: Any) -> None:
    """Send a body without being asked for it: the wait for that has no end in the HTTP client, whatever its time limits."""
    request.headers.pop("Expect", None)


class _Outside(Exception):
    """The service says that the range does not lie inside the object."""


async def _in_parts(data: AsyncIterator[bytes] | bytes) -> AsyncIterator[bytes]:
    """The data in parts of eight MiB, the last one shorter; what is in memory and not too long, in one."""
    if isinstance(data, bytes):
        step = PART if len(data) > AT_ONCE else AT_ONCE
        for at in range(0, len(data), step):
            yield data[at : at + step]
        return
    held = bytearray()
    async for piece in data:
        held += piece
        while len(held) >= PART:
            yield bytes(held[:PART])
            del held[:PART]
    if held:
        yield bytes(held)


async def _quietly(work: Awaitable[object]) -> None:
    """What cannot be undone now is swept by the bucket's own rules."""
    try:
        await work
    except (BotoCoreError, ClientError, TransportError, OSError):
        return


def _checked(key: str) -> str:
    segments = key.split("/")
    if len(key) > LONGEST_KEY or not all(_SEGMENT.match(s) and s not in {".", ".."} for s in segments):
        raise ValueError(f"not a key: {key[:80]!r}")
    return key


def _listed(item: dict[str, Any]) -> BlobInfo:
    changed = int(item["LastModified"].timestamp() * 1000)
    return BlobInfo(item["Key"], item["Size"], item["ETag"].strip('"'), changed)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _MISSING:
            raise NotFound("There is no such object.") from None
        if code in _OUTSIDE:
            raise _Outside from None
        if code in _FULL:
            raise InsufficientStorage("The object store is full.") from None
        raise Unavailable(f"The object store refused ({code}).", retry_after=2) from error
    except (BotoCoreError, TransportError, TimeoutError, OSError) as error:
        raise Unavailable("The object store does not answer.", retry_after=2) from error
