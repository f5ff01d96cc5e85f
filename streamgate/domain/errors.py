"""Every error the product raises on purpose, and the stable code each one carries.

    StreamGateError                       code, detail, retry_after, errors
    ├── Unauthenticated                   unauthenticated
    ├── Forbidden                         forbidden
    │   ├── NotEntitled                   not_entitled          (leaves: why)
    │   ├── PaymentRequired               payment_required
    │   ├── SessionExpired                session_expired
    │   ├── SessionRevoked                session_revoked
    │   └── EntitlementLost               entitlement_lost      (leaves: why)
    ├── NotFound                          not_found
    ├── MethodNotAllowed                  method_not_allowed
    ├── Conflict                          conflict
    │   ├── OffsetConflict                offset_conflict
    │   ├── SeatInUse                     seat_in_use
    │   ├── TooManyStreams                too_many_streams
    │   └── IdempotencyConflict           idempotency_conflict
    ├── PreconditionFailed                precondition_failed
    ├── ValidationFailed                  validation_failed     (errors: JSON pointers)
    │   ├── ChecksumMismatch              checksum_mismatch
    │   ├── PayloadTooLarge               payload_too_large
    │   └── UnsupportedMediaType          unsupported_media_type
    ├── UploadExpired                     upload_expired
    ├── RateLimited                       rate_limited
    ├── InsufficientStorage               insufficient_storage
    ├── Unavailable                       unavailable           (retry_after)
    │   └── ChainUnavailable              chain_unavailable
    ├── DeadlineExceeded                  deadline_exceeded
    └── Internal                          internal

Transport status (HTTP, gRPC) is given at the edges only, from ``code``. ``detail`` is a sentence for the
person who reads it: what is wrong and what to do; it never holds a secret, a token or a library trace.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong in the input: where (an RFC 6901 JSON pointer into the body, or a header name) and what."""

    pointer: str
    detail: str


class StreamGateError(Exception):
    """Root of the tree. ``code`` is stable and machine-readable; ``detail`` is for people."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        self.extra = extra or {}
        """Further members of the problem document, for example the ``leaves`` of a denied policy (plain JSON values)."""

    def to_wire(self) -> dict[str, Any]:
        """The error as plain values, for a binding that crosses a process; `from_wire` is its inverse."""
        return {
            "code": self.code,
            "detail": self.detail,
            "errors": [[e.pointer, e.detail] for e in self.errors],
            "retry_after": self.retry_after,
            "extra": self.extra,
        }

    @classmethod
    def from_wire(cls, value: dict[str, Any]) -> StreamGateError:
        """Rebuild the class of the tree that carries ``value['code']``; an unknown code becomes `Internal`."""
        kind = BY_CODE.get(value.get("code", ""), Internal)
        return kind(
            value.get("detail", "The other service failed without saying why."),
            errors=tuple(FieldError(pointer, detail) for pointer, detail in value.get("errors", ())),
            retry_after=value.get("retry_after"),
            extra=value.get("extra") or {},
        )

    @classmethod
    def from_problem(cls, document: dict[str, Any]) -> StreamGateError:
        """The error that a problem document of the API (RFC 9457) tells of; what it lacks is left out."""
        given = document.get("errors")
        items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        return cls.from_wire(
            {
                "code": str(document.get("code", "")),
                "detail": str(document.get("detail", "The server failed without saying why.")),
                "errors": [[str(item.get("pointer", "")), str(item.get("detail", ""))] for item in items],
            }
        )

    def at(self, pointer: str) -> Self:
        """The same error, naming the input member ``pointer`` (RFC 6901) as its cause."""
        self.errors = (*self.errors, FieldError(pointer, self.detail))
        return self


class Unauthenticated(StreamGateError):
    """Nobody is signed in, or what was presented is no valid credential."""

    code = "unauthenticated"


class Forbidden(StreamGateError):
    """The caller is known and may not do this."""

    code = "forbidden"


class NotEntitled(Forbidden):
    """The policy said no. ``extra['leaves']`` explains which rule, what is needed and what the wallet has."""

    code = "not_entitled"


class PaymentRequired(Forbidden):
    """The policy would be satisfied by a payment."""

    code = "payment_required"


class SessionExpired(Forbidden):
    """The playback session reached its hard cap."""

    code = "session_expired"


class SessionRevoked(Forbidden):
    """The playback session was ended: signed out, stopped, or its film or policy changed."""

    code = "session_revoked"


class EntitlementLost(Forbidden):
    """The wallet held what was needed when playback began and does not any more."""

    code = "entitlement_lost"


class NotFound(StreamGateError):
    """There is no such thing, or the caller may not know that there is."""

    code = "not_found"


class MethodNotAllowed(StreamGateError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class Conflict(StreamGateError):
    """The state of the thing does not admit the change."""

    code = "conflict"


class OffsetConflict(Conflict):
    """tus: Upload-Offset differs from the stored offset."""

    code = "offset_conflict"


class SeatInUse(Conflict):
    """The token's one seat is taken by another session."""

    code = "seat_in_use"


class TooManyStreams(Conflict):
    """The account plays as many streams as it may."""

    code = "too_many_streams"


class IdempotencyConflict(Conflict):
    """The same idempotency key came with another request."""

    code = "idempotency_conflict"


class PreconditionFailed(StreamGateError):
    """A precondition header does not hold (for example Tus-Resumable)."""

    code = "precondition_failed"


class ValidationFailed(StreamGateError):
    """The input is malformed; ``errors`` says where."""

    code = "validation_failed"


class ChecksumMismatch(ValidationFailed):
    """tus checksum extension: the bytes do not have the announced digest; none of them were kept."""

    code = "checksum_mismatch"


class PayloadTooLarge(ValidationFailed):
    """More bytes than the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(ValidationFailed):
    """Content-Type is not what the route takes."""

    code = "unsupported_media_type"


class UploadExpired(StreamGateError):
    """The upload existed and was swept."""

    code = "upload_expired"


class RateLimited(StreamGateError):
    """Too many requests; ``retry_after`` says when to come again."""

    code = "rate_limited"


class InsufficientStorage(StreamGateError):
    """The disk or the quota has no room for it."""

    code = "insufficient_storage"


class Unavailable(StreamGateError):
    """Something needed does not answer now; the same request may work later."""

    code = "unavailable"


class ChainUnavailable(Unavailable):
    """A chain could not be read, so the answer is unknown; unknown never grants."""

    code = "chain_unavailable"


class DeadlineExceeded(StreamGateError):
    """The time for the call ran out."""

    code = "deadline_exceeded"


class Internal(StreamGateError):
    """A defect of the product."""

    code = "internal"


class ConfigurationError(Exception):
    """The process cannot start as configured. The message is one sentence; the command line exits with code 2."""


def _tree(kind: type[StreamGateError]) -> list[type[StreamGateError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


BY_CODE: dict[str, type[StreamGateError]] = {kind.code: kind for kind in _tree(StreamGateError)[1:]}
"""Every problem code and the class that carries it."""
