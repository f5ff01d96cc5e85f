"""The headers of tus 1.0.0 (https://tus.io/protocols/resumable-upload), read strictly and written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol
from urllib.parse import urlsplit

import google_crc32c

from streamgate.domain.errors import ChecksumMismatch, PayloadTooLarge, PreconditionFailed, ValidationFailed
from streamgate.domain.identity import Prefix, is_id

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,termination,concatenation,expiration"
ALGORITHMS = "sha1,sha256,crc32c"
CONTENT_TYPE = "application/offset+octet-stream"
LONGEST_METADATA = 8 << 10
MAX_JOINED = 256

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,18})\Z")
_KEY = re.compile(r"[!-+\--~]{1,64}\Z")


class Digest(Protocol):
    """What `hashlib` objects and crc32c share."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Upload-Concat: a partial upload, or a final one of these upload ids, in order."""

    partial: bool
    upload_ids: tuple[str, ...] = ()
    header: str = ""


@dataclass(slots=True)
class Checksum:
    """Upload-Checksum: what the body's digest must be."""

    digest: Digest
    expected: bytes

    def verify(self) -> None:
        """Raises `ChecksumMismatch`."""
        if self.digest.digest() != self.expected:
            raise ChecksumMismatch(
                "The bytes do not have the announced checksum; none of them were kept. Send them again."
            )


def require_version(headers: Mapping[str, str]) -> None:
    """Raises `PreconditionFailed` unless the client speaks this version."""
    if headers.get("tus-resumable") != VERSION:
        raise PreconditionFailed(f"Send Tus-Resumable: {VERSION}; this server speaks no other version.")


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A header that is a non-negative number; None when it is missing."""
    text = headers.get(name.lower())
    if text is None:
        return None
    if not _NUMBER.match(text.strip()):
        raise ValidationFailed(f"{name} must be a number that is not negative.").at(name)
    return int(text)


def announced_length(headers: Mapping[str, str]) -> int | None:
    """Upload-Length, or None where Upload-Defer-Length is 1; exactly one of them must be there."""
    length, deferred = number(headers, "Upload-Length"), headers.get("upload-defer-length")
    if deferred is not None and deferred.strip() != "1":
        raise ValidationFailed("Upload-Defer-Length must be 1.").at("Upload-Defer-Length")
    if (length is None) == (deferred is None):
        raise ValidationFailed("Send either Upload-Length or Upload-Defer-Length: 1.").at("Upload-Length")
    return length


def metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Upload-Metadata decoded; keys are unique, values UTF-8."""
    text = headers.get("upload-metadata", "").strip()
    if len(text) > LONGEST_METADATA:
        raise PayloadTooLarge(f"Upload-Metadata must be at most {LONGEST_METADATA} characters.").at("Upload-Metadata")
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        key, _, encoded = pair.strip().partition(" ")
        try:
            value = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise ValidationFailed(f"The value of {key[:64]!r} is not base64 of UTF-8 text.").at(
                "Upload-Metadata"
            ) from None
        if not _KEY.match(key) or key in found:
            raise ValidationFailed(f"The key {key[:64]!r} is malformed or there twice.").at("Upload-Metadata")
        found[key] = value
    return found


def concatenation(headers: Mapping[str, str]) -> Concatenation | None:
    """Upload-Concat; final uploads are named by their URLs, absolute or not."""
    text = headers.get("upload-concat")
    if text is None:
        return None
    text = text.strip()
    if text == "partial":
        return Concatenation(partial=True, header=text)
    kind, _, urls = text.partition(";")
    ids = tuple(urlsplit(url).path.rstrip("/").rpartition("/")[2] for url in urls.split())
    if kind != "final" or not 1 <= len(ids) <= MAX_JOINED or not all(is_id(i, Prefix.UPLOAD) for i in ids):
        raise ValidationFailed(
            f"Upload-Concat must be `partial`, or `final;` and the URLs of 1 to {MAX_JOINED} uploads."
        ).at("Upload-Concat")
    if len(set(ids)) != len(ids):
        raise ValidationFailed("Upload-Concat names an upload twice.").at("Upload-Concat")
    return Concatenation(partial=False, upload_ids=ids, header=text)


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Upload-Checksum; `ValidationFailed` for an algorithm that is not offered."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.strip().partition(" ")
    makers: dict[str, Callable[[], Digest]] = {
        "sha1": lambda: hashlib.sha1(usedforsecurity=False),
        "sha256": hashlib.sha256,
        "crc32c": google_crc32c.Checksum,
    }
    if algorithm not in makers:
        raise ValidationFailed(f"Upload-Checksum must use one of: {ALGORITHMS}.").at("Upload-Checksum")
    digest = makers[algorithm]()
    try:
        expected = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        expected = b""
    if len(expected) != len(digest.digest()):
        raise ValidationFailed("Upload-Checksum must be the algorithm, a space, and the digest in base64.").at(
            "Upload-Checksum"
        )
    return Checksum(digest, expected)


def http_date(ms: int) -> str:
    """A moment as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    return format_datetime(datetime.fromtimestamp(ms // 1000, tz=UTC), usegmt=True)
