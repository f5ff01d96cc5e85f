"""What is said of a film: its state, who may see it, why it failed."""

from __future__ import annotations

import enum

import msgspec


class AssetState(enum.StrEnum):
    """``uploading → processing → ready | failed | canceled``."""

    UPLOADING = "uploading"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    CANCELED = "canceled"


class Visibility(enum.StrEnum):
    """Who may see that the film exists and who may watch it.

    ``private``: its owner. ``gated``: listed to everybody, watched by those its policy admits (without a policy:
    nobody but owner and administrators). ``public``: everybody.
    """

    PRIVATE = "private"
    GATED = "gated"
    PUBLIC = "public"


class FailureCode(enum.StrEnum):
    """Why a film cannot be played. The list is closed."""

    UNSUPPORTED_CONTAINER = "unsupported_container"
    UNSUPPORTED_CODEC = "unsupported_codec"
    NO_MEDIA_STREAMS = "no_media_streams"
    MALFORMED_MEDIA = "malformed_media"
    TRUNCATED_MEDIA = "truncated_media"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    ENCRYPTED_MEDIA = "encrypted_media"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class Failure(msgspec.Struct, frozen=True):
    """Why, as a code of the closed list and a sentence that says what to do."""

    code: FailureCode
    detail: str


class MediaWarning(msgspec.Struct, frozen=True):
    """Something about the film that did not stop it from playing."""

    code: str
    detail: str


class MediaRefused(Exception):
    """A file that cannot be played, found while looking at it or while encoding it; carries the `Failure`."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(code, detail)
